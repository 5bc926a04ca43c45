"""All checks of training that need a GPU, in one command of about 25 minutes on an H100:

    MAIR_PATH=<checkout> python -m tests.gpu --images <folder> --out <folder>

``--images`` has CIFAR-10 as files train/<class>/*, test/<class>/*; MAIR is a checkout of
https://github.com/Harry24k/MAIR. ``--parts exact,speed,engines,run`` picks some of the parts, for
machines that are lent for less time. Results are printed and added to ``gpu.json`` in ``--out``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
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
from tests.benchmarks.training import Bench, compare, mair_works

DEVICE = torch.device("cuda")
FAST: dict[str, Any] = {
    "precision": "bf16",
    "attack_precision": "bf16",
    "channels_last": True,
    "compile": True,
    "deterministic": False,
}
PEAK_BF16 = {"H100": 989e12, "H200": 989e12, "A100": 312e12}  # dense, per second, data sheets
ATTACK_STEPS = 10
PASSES = 2 * ATTACK_STEPS + 3  # forward passes' worth: each attack step 2, the training step 3
SEEDS = 3

Result = dict[str, Any]


def spec_of(images: DatasetSpec, **changes: Any) -> TrainingSpec:
    """AT with PGD-10 on ResNet-18 at 8/255; ``changes`` replace fields of spec or recipe."""
    recipe = Recipe(epochs=6, selection=Selection(size=500))
    spec = TrainingSpec(
        architecture="resnet18",
        method="at",
        steps=ATTACK_STEPS,
        optimizer="sgd",
        batch_size=128,
        augmentation="crop_flip",
        extra_data=False,
        dataset=images,
        threat=Threat(),
        recipe=recipe,
        seed=0,
    )
    of_recipe = {key: changes.pop(key) for key in list(changes) if hasattr(recipe, key)}
    return replace(spec, recipe=replace(recipe, **of_recipe), **changes)


def data_of(images: DatasetSpec, out: Path, *, extra: bool = False) -> Data:
    return load(images, extra_data=extra, cache=out / "datasets", device=DEVICE)


def stop_after(steps: int) -> Callable[[], bool]:
    left = iter([False] * steps)
    return lambda: next(left, True)


def exact(images: DatasetSpec, out: Path) -> Result:
    """Interrupted and resumed equals uninterrupted, bit for bit, with deterministic algorithms."""
    small = replace(
        images, train_size=1000, extra_size=500, extra_labels="true", selection_size=200
    )
    data = data_of(small, out, extra=True)
    same = {}
    for method in ("standard", "at", "trades", "mart"):
        spec = spec_of(
            small,
            method=method,
            steps=None if method == "standard" else 3,
            optimizer="awp",
            weight_perturbation=WeightPerturbation(),
            extra_data=True,
            epochs=2,
            precision="bf16",
            attack_precision="bf16",
            selection=Selection(size=100),
        )
        whole, cut = (out / "exact" / f"{method}-{name}" for name in ("whole", "cut"))
        train(spec, data, whole, training_id="id", device=DEVICE)
        for steps in (3, 6):
            try:
                stop = stop_after(steps)
                train(spec, data, cut, training_id="id", device=DEVICE, should_stop=stop)
            except Interrupted:
                continue
        train(spec, data, cut, training_id="id", device=DEVICE)
        first, second = (load_file(path / "last.safetensors") for path in (whole, cut))
        same[method] = all(torch.equal(first[key], second[key]) for key in first)
    x, y = data.test.images[:256].float() / 255, data.test.labels[:256]
    model = load_model(spec, data, cut / "last.safetensors", DEVICE)
    stream = generator(0, "check", device=DEVICE)
    x_adv = pgd(model, x, y, eps=8 / 255, step_size=2 / 255, steps=10, generator=stream)
    outside = float((x_adv - x).abs().max()) - 8 / 255
    return {"bit_identical": same, "inside_ball": outside < 1e-6, "ok": all(same.values())}


def speed(images: DatasetSpec, out: Path) -> Result:
    """Images a second of an AT-PGD-10 step, the ratio to MAIR, utilisation and peak memory."""
    found: Result = {}
    name = torch.cuda.get_device_name()
    peak = next((value for key, value in PEAK_BF16.items() if key in name), None)
    engines = {
        "fp32": Recipe(),
        "bf16": Recipe(**(FAST | {"compile": False})),
        "bf16+compile": Recipe(**FAST),
    }
    for architecture, repeats in (("resnet18", 15), ("wrn34_10", 4)):
        bench = Bench(DEVICE, 128, repeats, architecture)
        work_per_image = PASSES * flops(architecture, 10, 3, 32)
        checkout = os.environ.get("MAIR_PATH")
        theirs = mair_works(bench, Path(checkout))[1] if checkout else bench.torchattacks_pgd()
        for engine, recipe in engines.items():
            torch.cuda.reset_peak_memory_stats()
            with numerics(DEVICE, tf32=recipe.tf32, deterministic=recipe.deterministic):
                ours = bench.our_step(recipe)
                ours()
                memory = torch.cuda.max_memory_allocated()
                ratio = compare(ours, theirs, repeats, DEVICE)
            rate = bench.batch / ratio.ours_s
            found[f"{architecture} {engine}"] = {
                "images_per_second": rate,
                "peer": "MAIR training step" if checkout else "torchattacks PGD-10 alone",
                "peer_over_ours": str(ratio),
                "flops_per_image": work_per_image,
                "utilisation_of_bf16_peak": peak and rate * work_per_image / peak,
                "peak_memory_GiB": memory / 2**30,
            }
            print(architecture, engine, found[f"{architecture} {engine}"], flush=True)
    return found


def engines(images: DatasetSpec, out: Path) -> Result:
    """Fast minus fp32 engine after equal short trainings: PGD-10 accuracy over the seeds."""
    small = replace(images, train_size=10_000, test_size=2_000)
    data = data_of(small, out)
    differences, accuracies = [], []
    for seed in range(SEEDS):
        accuracy = {}
        for engine, recipe in (("fp32", {}), ("fast", FAST)):
            spec = spec_of(small, seed=seed, **recipe)
            folder = out / "engines" / f"{engine}-{seed}"
            train(spec, data, folder, training_id=f"seed {seed}", device=DEVICE)
            model = load_model(spec, data, folder / "last.safetensors", DEVICE)
            accuracy[engine] = evaluate(model, data, spec.threat, batch_size=1000).metrics[
                "pgd_test"
            ]
        accuracies.append(accuracy)
        differences.append(accuracy["fast"] - accuracy["fp32"])
    half = float(student.ppf(0.975, SEEDS - 1)) * stdev(differences) / SEEDS**0.5
    centre = mean(differences)
    interval = [centre - half, centre + half]
    return {"accuracies": accuracies, "difference": centre, "interval_95": interval}


def long_run(images: DatasetSpec, out: Path) -> Result:
    """30 epochs of AT on ResNet-18, stopped in the middle of epoch 12 and resumed."""
    spec = spec_of(images, epochs=30, **FAST)
    data = data_of(images, out)
    folder = out / "run"
    steps = -(-len(data.train) // spec.batch_size)
    began = time.monotonic()
    try:
        stop = stop_after(round(11.5 * steps))
        train(spec, data, folder, training_id="run", device=DEVICE, should_stop=stop)
    except Interrupted as reason:
        print("interrupted", reason, flush=True)
    result = train(spec, data, folder, training_id="run", device=DEVICE)
    seconds = time.monotonic() - began
    model = load_model(spec, data, folder / "best.safetensors", DEVICE)
    metrics = evaluate(model, data, spec.threat, batch_size=1000).metrics
    return {"seconds": seconds, "best": metrics, "curves": list(result.history)}


PARTS: dict[str, Callable[[DatasetSpec, Path], Result]] = {
    "exact": exact,
    "speed": speed,
    "engines": engines,
    "run": long_run,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, help="folder with train/<class>, test/<class>")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    arguments = parser.parse_args()
    chosen = arguments.parts.split(",")
    if not set(chosen) <= set(PARTS):
        parser.error(f"--parts: choose from {', '.join(PARTS)}")
    if not torch.cuda.is_available():
        parser.error("there is no CUDA device here")
    arguments.out.mkdir(parents=True, exist_ok=True)
    report = arguments.out / "gpu.json"
    found: Result = json.loads(report.read_text()) if report.exists() else {}
    found["machine"] = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    found["host"] = platform.platform()
    images = DatasetSpec(name="image_folder", path=arguments.images)
    for part in chosen:
        began = time.monotonic()
        found[part] = PARTS[part](images, arguments.out)
        found[part]["took_s"] = round(time.monotonic() - began, 1)
        report.write_text(json.dumps(found, indent=1))
        shown = {key: value for key, value in found[part].items() if key != "curves"}
        print(part, json.dumps(shown, indent=1), flush=True)


if __name__ == "__main__":
    main()
