"""What there is to show about training on a GPU, each a function of its setup."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from safetensors.torch import load_file
from scipy.stats import t as student
from torch import nn

from defenses.architectures import flops
from defenses.attacks import pgd
from defenses.batches import steps_per_epoch
from defenses.datasets import Data, load
from defenses.evaluation import evaluate, pgd_outcome
from defenses.numerics import numerics
from defenses.randomness import generator
from defenses.spec import DatasetSpec, Recipe, Selection, Threat, TrainingSpec, WeightPerturbation
from defenses.training import Interrupted, load_model, train
from sweep.estimate import arithmetic
from tests.benchmarks.training import PAPER, Bench, Work, compare, mair_works

ATTACK_STEPS = 10
PASSES = 2 * ATTACK_STEPS + 3  # forward passes' worth: each attack step 2, the training step 3
WARM_UP = 3  # steps: compiled kernels are run, then recorded, then replayed
SEEDS = 3
HALF: dict[str, Any] = {"precision": "bf16", "attack_precision": "bf16", "channels_last": True}
FAST = HALF | {"compile": True, "deterministic": False}
# Peak operations a second, dense, of the vendor's data sheets (SXM).
HOPPER = {"bf16": 989e12, "TF32": 494.5e12, "fp32": 67e12}
PEAKS = {
    "H100": HOPPER,
    "H200": HOPPER,
    "A100": {"bf16": 312e12, "TF32": 156e12, "fp32": 19.5e12},
}

Result = dict[str, Any]
Keep = Callable[[Result], None]  # stores what has been found so far


@dataclass(frozen=True)
class Setup:
    """``tiny`` runs every line that a CPU can run, on digits and small networks."""

    device: torch.device
    images: DatasetSpec
    out: Path
    tiny: bool = False

    def spec(self, **changes: Any) -> TrainingSpec:
        """AT with PGD-10 on ResNet-18; ``changes`` replace fields of the spec or the recipe."""
        size, epochs = (50, 2) if self.tiny else (500, 6)
        recipe = Recipe(epochs=epochs, crop_padding=1 if self.tiny else 4)
        recipe = replace(recipe, selection=Selection(size=size))
        spec = TrainingSpec(
            architecture="resnet_small" if self.tiny else "resnet18",
            method="at",
            steps=ATTACK_STEPS,
            optimizer="sgd",
            batch_size=128,
            augmentation="crop_flip",
            extra_data=False,
            dataset=self.images,
            threat=Threat(eps=0.15, step_size=0.04) if self.tiny else Threat(),
            recipe=recipe,
            seed=0,
        )
        of_recipe = {key: changes.pop(key) for key in list(changes) if hasattr(recipe, key)}
        return replace(spec, recipe=replace(recipe, **of_recipe), **changes)

    def fast(self) -> dict[str, Any]:
        """The fast engine. What is not compiled, as if ``tiny``, has its batch norm folded."""
        if self.tiny or compile_error(self.device) is not None:
            return FAST | {"compile": False, "fold_batch_norm": True}
        return FAST

    def data(self, images: DatasetSpec, *, extra: bool = False) -> Data:
        return load(images, extra_data=extra, cache=self.out / "datasets", device=self.device)

    def train(
        self,
        spec: TrainingSpec,
        data: Data,
        name: str,
        stop_after: int | None = None,
        checkpoint_minutes: float = 10.0,
    ) -> Any:
        """Train in a folder of that name; stopped after so many steps the result is None."""
        left = iter([False] * (stop_after or 0))
        folder = self.out / name
        try:
            return train(
                spec,
                data,
                folder,
                training_id=f"{name.partition('-')[0]} {spec.seed}",
                device=self.device,
                should_stop=lambda: stop_after is not None and next(left, True),
                checkpoint_minutes=checkpoint_minutes,
            )
        except Interrupted as reason:
            print(f"{name}: interrupted {reason}", flush=True)
            return None

    def model(self, spec: TrainingSpec, data: Data, name: str, checkpoint: str) -> nn.Module:
        return load_model(spec, data, self.out / name / f"{checkpoint}.safetensors", self.device)


@cache
def compile_error(device: torch.device) -> str | None:
    """Why nothing can be compiled here, most likely for want of a C compiler; None if it can."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).to(device)
    model.compile()
    try:
        model(torch.rand(2, 3, 8, 8, device=device)).sum().backward()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other engines remain
        return f"{type(error).__name__}: {error}"
    return None


def exact(setup: Setup, keep: Keep) -> None:
    """Killed, interrupted and resumed equals uninterrupted, bit for bit, in deterministic runs."""
    sizes = (200, 100, 100) if setup.tiny else (1000, 500, 200)
    small = replace(
        setup.images,
        train_size=sizes[0],
        extra_size=sizes[1],
        selection_size=sizes[2],
        extra_labels="true",
    )
    data = setup.data(small, extra=True)
    same: dict[str, bool] = {}
    kills: dict[str, bool] = {}
    for method in ("standard", "at", "trades", "mart"):
        spec = setup.spec(
            dataset=small,
            method=method,
            steps=None if method == "standard" else 3,
            optimizer="awp",
            weight_perturbation=WeightPerturbation(),
            batch_size=64,
            extra_data=True,
            epochs=2,
            precision="bf16",
            attack_precision="bf16",
            selection=Selection(size=100),
        )
        for name in ("whole", "cut"):
            shutil.rmtree(setup.out / f"{method}-{name}", ignore_errors=True)
        setup.train(spec, data, f"{method}-whole")
        kills[method] = killed(setup, spec, f"{method}-cut")
        for steps in (2, None):
            setup.train(spec, data, f"{method}-cut", steps)
        whole, cut = (
            load_file(setup.out / f"{method}-{name}" / "last.safetensors")
            for name in ("whole", "cut")
        )
        same[method] = all(torch.equal(whole[key], cut[key]) for key in whole)
        keep({"bit_identical": same, "was_killed": kills})
    x, y = data.test.images[:256].float() / 255, data.test.labels[:256]
    model = setup.model(spec, data, "mart-cut", "last")
    stream = generator(0, "check", device=setup.device)
    x_adv = pgd(model, x, y, eps=8 / 255, step_size=2 / 255, steps=10, generator=stream)
    inside = bool((x_adv - x).abs().max() <= 8 / 255 + 1e-6)
    in_box = bool(x_adv.min() >= 0) and bool(x_adv.max() <= 1)
    keep({"bit_identical": same, "was_killed": kills, "in_ball_and_box": inside and in_box})


def killed(setup: Setup, spec: TrainingSpec, name: str) -> bool:
    """Begin a training in a process of its own, kill it after two steps; False if it had ended."""
    process = multiprocessing.get_context("spawn").Process(
        target=save_each_step, args=(setup, spec, name)
    )
    process.start()
    while process.is_alive() and not (setup.out / name / "checkpoint.previous.pt").exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def save_each_step(setup: Setup, spec: TrainingSpec, name: str) -> None:
    setup.train(spec, setup.data(spec.dataset, extra=True), name, checkpoint_minutes=0)


def speed(setup: Setup, keep: Keep) -> None:
    """Images a second of an AT-PGD-10 step, the ratio to MAIR, utilisation and peak memory.

    MAIR runs as it comes: with PyTorch's own flags, that is TF32 in convolutions.
    """
    engines = {
        "fp32": Recipe(),
        "study=paper": PAPER,
        "bf16": Recipe(**HALF, fold_batch_norm=True, deterministic=False),
    }
    nets = (("wrn10_1", 3),) if setup.tiny else (("resnet18", 15), ("wrn34_10", 3))
    cases = [(net, repeats, engine) for net, repeats in nets for engine in engines]
    if not setup.tiny:
        for engine, graphs in (("bf16, compiled", False), ("bf16, compiled, CUDA graphs", True)):
            engines[engine] = Recipe(**FAST, cuda_graphs=graphs)
            cases += [(net, repeats, engine) for net, repeats in nets]
    checkout = os.environ.get("MAIR_PATH")
    found: Result = {"peer": "MAIR's training step" if checkout else "torchattacks' PGD-10 alone"}
    peers: dict[str, tuple[Bench, Work]] = {}
    for net, repeats, engine in cases:
        if net not in peers:
            bench = Bench(setup.device, 8 if setup.tiny else 128, repeats, net)
            theirs = mair_works(bench, Path(checkout))[1] if checkout else bench.torchattacks_pgd()
            peers[net] = bench, theirs
        try:
            found[f"{net}, {engine}"] = timed(*peers[net], engines[engine])
        except Exception as error:  # noqa: BLE001 - the other engines are still to be timed
            found[f"{net}, {engine}"] = {"failed": f"{type(error).__name__}: {error}"}
        keep(found)


def timed(bench: Bench, theirs: Work, recipe: Recipe) -> Result:
    """Speed and memory of one engine's training step, next to the peer's."""
    cuda = bench.device.type == "cuda"
    if cuda:
        torch.compiler.reset()  # gives back what was recorded before
    before = memory(bench.device)
    ours = under(recipe, bench.our_step(recipe), bench.device)
    for _ in range(WARM_UP):
        ours()
    memory(bench.device)  # without what trying algorithms took
    ours()
    reserved = torch.cuda.memory_reserved() if cuda else 0
    peak_memory = torch.cuda.max_memory_allocated() if cuda else 0
    ratio = compare(ours, theirs, bench.repeats, bench.device)
    rate = bench.batch / ratio.ours_s
    forward = flops(bench.architecture, 10, 3, 32)
    name = torch.cuda.get_device_name() if cuda else "CPU"
    peaks = next((peak for key, peak in PEAKS.items() if key in name), {})
    peak = peaks.get(arithmetic(recipe)[1])
    return {
        "batch": bench.batch,
        "images_per_second": rate,
        "peer_images_per_second": bench.batch / median(ratio.theirs),
        "ratio": ratio.median,
        "peer_over_ours": str(ratio),
        "flops_per_image": f"{PASSES} passes of {forward}",
        "model_flop_utilisation": peak and rate * PASSES * forward / peak,
        "of_peak": peak,
        "peak_memory_GiB": (peak_memory - before[0]) / 2**30 if cuda else None,
        "reserved_memory_GiB": (reserved - before[1]) / 2**30 if cuda else None,
    }


def memory(device: torch.device) -> tuple[int, int]:
    """Bytes that are (allocated, reserved) once what is no longer used is given back."""
    gc.collect()
    if device.type != "cuda":
        return 0, 0
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()


def under(recipe: Recipe, work: Work, device: torch.device) -> Work:
    """``work`` with the flags that the training loop would set, and only for as long."""

    def flagged() -> object:
        with numerics(device, tf32=recipe.tf32, deterministic=recipe.deterministic):
            return work()

    return flagged


def engines(setup: Setup, keep: Keep) -> None:
    """Other engines minus fp32 after equal short trainings: PGD-10 accuracy over the seeds."""
    sizes = {"train_size": 300} if setup.tiny else {"train_size": 8_000, "test_size": 2_000}
    small = replace(setup.images, **sizes)  # type: ignore[arg-type]
    data = setup.data(small)
    recipes: dict[str, dict[str, Any]] = {"fp32": {}, "fast": setup.fast()}
    cases = [(name, seed) for seed in range(SEEDS) for name in recipes]
    if recipes["fast"]["compile"]:  # last: nothing else is lost if recording fails
        recipes["CUDA graphs"] = FAST | {"cuda_graphs": True}
        cases += [("CUDA graphs", seed) for seed in range(SEEDS)]
    found: Result = engine_of(setup) | {name: [] for name in recipes}
    for name, seed in cases:
        spec = setup.spec(dataset=small, seed=seed, **recipes[name])
        folder = f"engines-{name}-{seed}".replace(" ", "_")
        setup.train(spec, data, folder)
        with numerics(setup.device):
            outcome = pgd_outcome(
                setup.model(spec, data, folder, "last"),
                data.test,
                spec.threat,
                steps=10,
                batch_size=1000,
                seed=0,
                purpose="evaluation/test",
            )
        found[name].append(outcome.accuracy)
        pairs = list(zip(found[name], found["fp32"], strict=False))
        if name != "fp32" and len(pairs) > 1:
            found[f"{name} - fp32"] = interval([ours - exact for ours, exact in pairs])
        keep(found)


def engine_of(setup: Setup) -> Result:
    """The fast engine as it is on this machine, and why it is not compiled if it is not."""
    error = None if setup.tiny else compile_error(setup.device)
    return {"engine": setup.fast(), "compile_error": error}


def interval(values: list[float]) -> Result:
    """Mean, and its 95 % interval by Student's t."""
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return {"mean": mean(values), "interval_95": [mean(values) - half, mean(values) + half]}


def run(setup: Setup, keep: Keep) -> None:
    """30 epochs of AT on ResNet-18, stopped in the middle of one and resumed.

    Its accuracies are those on the test images and on as many of the training images.
    """
    epochs = 3 if setup.tiny else 30
    spec = setup.spec(epochs=epochs, **setup.fast())
    data = setup.data(setup.images)
    steps = steps_per_epoch(spec, len(data.train))
    setup.train(spec, data, "run", round((0.4 * epochs + 0.5) * steps))
    result = setup.train(spec, data, "run")
    found = engine_of(setup) | {
        "train_seconds": result.seconds,
        "best_epoch": result.best_epoch,
        "curves": list(result.history),
    }
    keep(found)
    some = replace(data, train=data.train[: len(data.test)])
    for checkpoint in ("best", "last"):
        with numerics(setup.device):
            model = setup.model(spec, data, "run", checkpoint)
            found[checkpoint] = evaluate(model, some, spec.threat, batch_size=1000).metrics
        keep(found)


PARTS: dict[str, Callable[[Setup, Keep], None]] = {
    "exact": exact,
    "speed": speed,
    "engines": engines,
    "run": run,
}
