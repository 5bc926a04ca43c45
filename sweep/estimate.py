"""What a study costs in time and on disk: counted before it runs, measured where it has run."""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from defenses import architectures
from sweep.setting import Job
from sweep.store import Row, Store

BACKWARD = 2.0  # a backward pass costs about two forward passes
STEP_OVERHEAD_IMAGES = 16  # a step costs as if it had so many more images, however small it is
IMAGES = {"digits": (1, 8), "mnist": (1, 28), "fashion_mnist": (1, 28)}  # channels, side
COLOUR = (3, 32)  # all others; a folder of larger images costs more than is said
# A stated device to turn counted FLOPs into hours where nothing has been measured: an A100 runs
# ResNet training in TF32 at about a third of its 156 TFLOP/s peak.
ASSUMED_DEVICE = "one A100, TF32 at 50 TFLOP/s sustained"
ASSUMED_FLOPS = 50e12


def passes(job: Job) -> int:
    """Forward-and-backward passes of one training step, per image.

    One for the update; one for each step of the inner maximisation (the gradient with respect to
    the image); one for the weights' ascent of AWP; one for the clean image that TRADES and MART
    also learn from.
    """
    spec = job.spec
    clean = spec.method not in ("standard", "at")
    return 1 + (spec.steps or 0) + (spec.optimizer == "awp") + clean


def steps(job: Job) -> int:
    """Optimiser steps of the whole training."""
    spec = job.spec
    per_epoch = math.ceil(job.train_size / spec.batch_size)
    return max(per_epoch, spec.recipe.min_steps_per_epoch) * spec.recipe.epochs


def training_flops(job: Job) -> float:
    """Floating-point operations of the whole training, from the architecture's counted ones."""
    forward = _forward_flops(job.spec.architecture, job.spec.dataset.name)
    return steps(job) * job.spec.batch_size * passes(job) * (1 + BACKWARD) * forward


def relative_cost(job: Job) -> float:
    """Cost of a job relative to others of the same study."""
    images = steps(job) * (job.spec.batch_size + STEP_OVERHEAD_IMAGES)
    return images * passes(job) * _forward_flops(job.spec.architecture, job.spec.dataset.name)


@dataclass(frozen=True)
class Hours:
    """Device hours that are left, and where the number comes from."""

    hours: float
    source: str


def hours(todo: Iterable[Job], finished: Sequence[Job], store: Store) -> Hours:
    """Hours of one device for training, evaluating and measuring ``todo``.

    Where trainings of an architecture are finished, by their measured seconds for each image and
    pass; else by counted FLOPs of the training alone, on a stated device.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    cost: defaultdict[str, float] = defaultdict(float)
    devices: Counter[str] = Counter()
    for job in finished:
        rows = [row for c in job.checkpoints if (row := store.read_row(job.model_id(c)))]
        if rows and all("train_seconds" in row["costs"] for row in rows):
            seconds[job.spec.architecture] += _measured_seconds(rows)
            cost[job.spec.architecture] += relative_cost(job)
            devices[str(rows[0]["provenance"].get("device_name"))] += 1
    total, counted, known = 0.0, 0, 0
    for job in todo:
        if measured := cost.get(job.spec.architecture):
            total += seconds[job.spec.architecture] * relative_cost(job) / measured
            known += 1
        else:
            total += training_flops(job) / ASSUMED_FLOPS
            counted += 1
    sources = []
    if known:
        names = " and ".join(name for name, _ in devices.most_common())
        sources.append(f"measured in {devices.total()} trainings on {names}")
    if counted:
        which = f"for {counted} of {known + counted} trainings " if known else ""
        sources.append(f"{which}from counted FLOPs on {ASSUMED_DEVICE}")
    return Hours(total / 3600, "; ".join(sources) or "nothing to train")


def _measured_seconds(rows: Sequence[Row]) -> float:
    """Seconds of one training and of everything done with its models."""
    costs = [row["costs"] for row in rows]
    after = sum(
        c.get("evaluate_seconds", 0.0) + sum(c.get("measure_seconds", {}).values()) for c in costs
    )
    return float(costs[0]["train_seconds"] + after)


@dataclass(frozen=True)
class Disk:
    """``bytes_at_most``: with the checkpoints that resuming needs, which ``gc`` removes later."""

    files: int
    bytes: int
    bytes_at_most: int


FILES_PER_TRAINING = 9
FILES_PER_MODEL = 2
WEIGHTS_PER_TRAINING = 3  # initial, best and last
WEIGHTS_PER_CHECKPOINT = 3  # weights, momentum, the best so far; two checkpoints are kept


def disk(jobs: Sequence[Job]) -> Disk:
    """What all trainings and models of a study take on disk, without data and W&B's folders."""
    weights = sum(4 * _parameters(job.spec.architecture, job.spec.dataset.name) for job in jobs)
    kept = WEIGHTS_PER_TRAINING * weights
    models = sum(len(job.checkpoints) for job in jobs)
    files = len(jobs) * FILES_PER_TRAINING + models * FILES_PER_MODEL
    return Disk(files, kept, kept + 2 * WEIGHTS_PER_CHECKPOINT * weights)


@functools.cache
def _forward_flops(name: str, dataset: str) -> float:
    channels, side = IMAGES.get(dataset, COLOUR)
    return float(architectures.flops(name, num_classes=10, in_channels=channels, image_size=side))


@functools.cache
def _parameters(name: str, dataset: str) -> int:
    channels, _ = IMAGES.get(dataset, COLOUR)
    with torch.device("meta"):
        network = architectures.architecture(name).make(10, channels)
    return architectures.parameter_count(network)
