"""What there is to show about training on a GPU, each a function of its setup."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from safetensors.torch import load_file
from scipy.stats import t as student

from defenses.architectures import flops
from defenses.attacks import pgd
from defenses.datasets import Data, load
from defenses.evaluation import evaluate
from defenses.numerics import numerics
from defenses.randomness import generator
from defenses.spec import DatasetSpec, Recipe, Selection, Threat, TrainingSpec, WeightPerturbation
from defenses.training import Interrupted, load_model, train
from sweep.estimate import arithmetic
from tests.benchmarks.training import PAPER, Bench, Work, compare, mair_works

ATTACK_STEPS = 10
PASSES = 2 * ATTACK_STEPS + 3  # forward passes' worth: each attack step 2, the training step 3
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
        """The fast engine; without compilation, which takes minutes on a CPU, if ``tiny``."""
        return FAST | {"compile": not self.tiny}

    def data(self, images: DatasetSpec, *, extra: bool = False) -> Data:
        return load(images, extra_data=extra, cache=self.out / "datasets", device=self.device)

    def train(
        self, spec: TrainingSpec, data: Data, name: str, stop_after: int | None = None
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
            )
        except Interrupted as reason:
            print(f"{name}: interrupted {reason}", flush=True)
            return None

    def metrics(self, spec: TrainingSpec, data: Data, name: str, checkpoint: str) -> Result:
        """Clean and PGD-10 accuracies in fp32."""
        weights = self.out / name / f"{checkpoint}.safetensors"
        with numerics(self.device):
            model = load_model(spec, data, weights, self.device)
            return evaluate(model, data, spec.threat, batch_size=1000).metrics


def exact(setup: Setup, keep: Keep) -> None:
    """Interrupted and resumed equals uninterrupted, bit for bit, with deterministic algorithms."""
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
        setup.train(spec, data, f"{method}-whole")
        for steps in (3, 2, None):
            setup.train(spec, data, f"{method}-cut", steps)
        whole, cut = (
            load_file(setup.out / f"{method}-{name}" / "last.safetensors")
            for name in ("whole", "cut")
        )
        same[method] = all(torch.equal(whole[key], cut[key]) for key in whole)
        keep({"bit_identical": same})
    x, y = data.test.images[:256].float() / 255, data.test.labels[:256]
    model = load_model(spec, data, setup.out / "mart-cut" / "last.safetensors", setup.device)
    stream = generator(0, "check", device=setup.device)
    x_adv = pgd(model, x, y, eps=8 / 255, step_size=2 / 255, steps=10, generator=stream)
    inside = bool((x_adv - x).abs().max() <= 8 / 255 + 1e-6)
    in_box = bool(x_adv.min() >= 0) and bool(x_adv.max() <= 1)
    keep({"bit_identical": same, "in_ball_and_box": inside and in_box})


def speed(setup: Setup, keep: Keep) -> None:
    """Images a second of an AT-PGD-10 step, the ratio to MAIR, utilisation and peak memory.

    MAIR runs as it comes: with PyTorch's own flags, that is TF32 in convolutions.
    """
    engines = {
        "fp32": Recipe(),
        "study=paper": PAPER,
        "bf16": Recipe(**HALF, fold_batch_norm=True, deterministic=False),
    }
    if not setup.tiny:
        engines["bf16, compiled"] = Recipe(**FAST)
        engines["bf16, compiled, CUDA graphs"] = Recipe(**FAST, cuda_graphs=True)
    cuda = setup.device.type == "cuda"
    name = torch.cuda.get_device_name() if cuda else "CPU"
    peaks = next((peak for key, peak in PEAKS.items() if key in name), {})
    nets = (("wrn10_1", 3),) if setup.tiny else (("resnet18", 15), ("wrn34_10", 3))
    checkout = os.environ.get("MAIR_PATH")
    found: Result = {}
    for architecture, repeats in nets:
        bench = Bench(setup.device, 8 if setup.tiny else 128, repeats, architecture)
        theirs = mair_works(bench, Path(checkout))[1] if checkout else bench.torchattacks_pgd()
        work_per_image = PASSES * flops(architecture, 10, 3, 32)
        for engine, recipe in engines.items():
            ours = under(recipe, bench.our_step(recipe), setup.device)
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            try:
                ours()
                memory = torch.cuda.max_memory_allocated() / 2**30 if cuda else None
                ratio = compare(ours, theirs, repeats, setup.device)
            except Exception as error:  # noqa: BLE001 - the other engines are still to be timed
                found[f"{architecture}, {engine}"] = {"failed": f"{type(error).__name__}: {error}"}
                keep(found)
                continue
            rate = bench.batch / ratio.ours_s
            peak = peaks.get(arithmetic(recipe)[1])
            found[f"{architecture}, {engine}"] = {
                "batch": bench.batch,
                "images_per_second": rate,
                "peer": "MAIR's training step" if checkout else "torchattacks' PGD-10 alone",
                "peer_over_ours": str(ratio),
                "flops_per_image": work_per_image,
                "model_flop_utilisation": peak and rate * work_per_image / peak,
                "of_peak": peak,
                "peak_memory_GiB": memory,
            }
            keep(found)


def under(recipe: Recipe, work: Work, device: torch.device) -> Work:
    """``work`` with the flags that the training loop would set, and only for as long."""

    def flagged() -> object:
        with numerics(device, tf32=recipe.tf32, deterministic=recipe.deterministic):
            return work()

    return flagged


def engines(setup: Setup, keep: Keep) -> None:
    """Fast minus fp32 engine after equal short trainings: PGD-10 accuracy over the seeds."""
    sizes = {"train_size": 300} if setup.tiny else {"train_size": 10_000, "test_size": 2_000}
    small = replace(setup.images, **sizes)  # type: ignore[arg-type]
    data = setup.data(small)
    accuracies: list[dict[str, float]] = []
    for seed in range(SEEDS):
        accuracy = {}
        for engine, recipe in (("fp32", {}), ("fast", setup.fast())):
            spec = setup.spec(dataset=small, seed=seed, **recipe)
            setup.train(spec, data, f"engines-{engine}-{seed}")
            metrics = setup.metrics(spec, data, f"engines-{engine}-{seed}", "last")
            accuracy[engine] = metrics["pgd_test"]
        accuracies.append(accuracy)
        keep({"accuracies": accuracies})
    differences = [a["fast"] - a["fp32"] for a in accuracies]
    half = float(student.ppf(0.975, SEEDS - 1)) * stdev(differences) / SEEDS**0.5
    centre = mean(differences)
    interval = [centre - half, centre + half]
    keep({"accuracies": accuracies, "difference": centre, "interval_95": interval})


def run(setup: Setup, keep: Keep) -> None:
    """30 epochs of AT on ResNet-18, stopped in the middle of one and resumed."""
    epochs = 3 if setup.tiny else 30
    spec = setup.spec(epochs=epochs, **setup.fast())
    data = setup.data(setup.images)
    steps = -(-len(data.train) // spec.batch_size)
    setup.train(spec, data, "run", round((0.4 * epochs + 0.5) * steps))
    result = setup.train(spec, data, "run")
    keep({"train_seconds": result.seconds, "curves": list(result.history)})
    best, last = (setup.metrics(spec, data, "run", name) for name in ("best", "last"))
    keep(
        {
            "train_seconds": result.seconds,
            "best_epoch": result.best_epoch,
            "best": best,
            "last": last,
            "curves": list(result.history),
        }
    )


PARTS: dict[str, Callable[[Setup, Keep], None]] = {
    "exact": exact,
    "speed": speed,
    "engines": engines,
    "run": run,
}
