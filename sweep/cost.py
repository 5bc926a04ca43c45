"""What is left of a study costs: hours of a device, and space on disk."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from defenses import architectures
from sweep.estimate import ASSUMED_FLOPS, arithmetic, gpu_seconds, relative_cost
from sweep.setting import Images, Job
from sweep.store import Row, Store

FILES_PER_TRAINING = 9
FILES_PER_MODEL = 2
WEIGHTS_PER_TRAINING = 3  # initial, best and last
WEIGHTS_PER_CHECKPOINT = 3  # weights, momentum, the best so far; two checkpoints are kept


@dataclass(frozen=True)
class Hours:
    """Device hours that are left, and where the number comes from."""

    hours: float
    source: str


def hours(todo: Iterable[Job], finished: Sequence[Job], store: Store) -> Hours:
    """Hours of one device for training, evaluating and measuring ``todo``.

    Where trainings of an architecture are finished, by their measured seconds for each image and
    pass; else by counted FLOPs of the training steps alone, at what an A100 is assumed to sustain.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    cost: defaultdict[str, float] = defaultdict(float)
    devices: Counter[str] = Counter()
    for job in finished:
        rows = [row for c in job.checkpoints if (row := store.read_row(job.model_id(c)))]
        if rows and all("train_seconds" in row["costs"] for row in rows):
            seconds[job.spec.architecture] += _measured_seconds(rows)
            cost[job.spec.architecture] += relative_cost(job)
            devices[rows[0]["provenance"].get("device_name") or "an unknown device"] += 1
    total, known = 0.0, 0
    counted: list[Job] = []
    for job in todo:
        if measured := cost.get(job.spec.architecture):
            total += seconds[job.spec.architecture] * relative_cost(job) / measured
            known += 1
        else:
            total += gpu_seconds(job)
            counted.append(job)
    sources = []
    if known:
        names = " and ".join(name for name, _ in devices.most_common())
        sources.append(f"measured in {devices.total()} trainings on {names}")
    if counted:
        which = f"for {len(counted)} of {known + len(counted)} trainings " if known else ""
        kinds = sorted({kind for job in counted for kind in arithmetic(job.spec.recipe)})
        speeds = ", ".join(f"{ASSUMED_FLOPS[kind] / 1e12:g} TFLOP/s in {kind}" for kind in kinds)
        sources.append(
            f"{which}from counted FLOPs of the training steps alone, at what one A100 is assumed "
            f"to sustain: {speeds}"
        )
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


def disk(jobs: Sequence[Job]) -> Disk:
    """What all trainings and models of a study take on disk, without data and W&B's folders."""
    trained = [job for job in jobs if job.spec.imported is None]
    weights = sum(4 * _parameters(job.spec.architecture, job.images) for job in trained)
    kept = WEIGHTS_PER_TRAINING * weights
    models = sum(len(job.checkpoints) for job in jobs)
    files = len(trained) * FILES_PER_TRAINING + models * FILES_PER_MODEL
    return Disk(files, kept, kept + 2 * WEIGHTS_PER_CHECKPOINT * weights)


@functools.cache
def _parameters(name: str, images: Images) -> int:
    with torch.device("meta"):
        network = architectures.architecture(name).make(images.classes, images.channels)
    return architectures.parameter_count(network)
