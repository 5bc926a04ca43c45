"""A study's files without any training: what the tests of tracking compare W&B with."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from defenses.spec import DatasetSpec, Recipe, Threat, TrainingSpec
from sweep import manifest, steps
from sweep.schema import Checkpoint
from sweep.setting import Evaluation, Job, Measuring, Runtime, model_axes
from sweep.store import Row, Store, new_row
from sweep.tracking import TrackingSettings

METHODS = ("standard", "at", "trades", "mart")
STUDY = "small"


def job(number: int, tracking: TrackingSettings, study: str = STUDY) -> Job:
    """The ``number``-th training of a grid over methods and batch sizes."""
    method = METHODS[number % len(METHODS)]
    spec = TrainingSpec(
        architecture="small_resnet",
        method=method,
        steps=None if method == "standard" else 10,
        optimizer="sgd",
        batch_size=32 << (number // len(METHODS) % 4),
        augmentation="none",
        extra_data=number % 2 == 1,
        dataset=DatasetSpec(),
        threat=Threat(eps=0.15, step_size=0.04),
        recipe=Recipe(epochs=5),
        seed=number,
    )
    checkpoints: tuple[Checkpoint, ...] = ("last", "best")
    return Job(
        study=study,
        training_id=f"{number:016x}",
        spec=spec,
        train_size=900,
        checkpoints=checkpoints,
        axes={c: {"method": method, "early_stopping": c == "best"} for c in checkpoints},
        evaluation=Evaluation(),
        measuring=Measuring(),
        tracking=tracking,
        runtime=Runtime(),
    )


def history(number: int, epochs: int = 5) -> list[dict[str, Any]]:
    """Epoch records in the format of ``history.jsonl``."""
    return [
        {
            "epoch": epoch,
            "lr": 0.1,
            "loss": math.exp(-epoch) + number,
            "loss/ce": math.exp(-epoch),
            "clean_selection": 1 - 1 / (epoch + 1),
            "pgd_selection": 0.5 - 1 / (epoch + 2),
            "images_per_second": 1000.0 + epoch,
            "seconds": 0.25,
        }
        for epoch in range(1, epochs + 1)
    ]


def row(job_: Job, checkpoint: Checkpoint, **changes: Any) -> Row:
    """A finished row: values that JSON may bend (0.1 + 0.2, 1.0, 1e-30, None) are among them."""
    seed = job_.spec.seed
    fresh = new_row(
        model_id=job_.model_id(checkpoint),
        training_id=job_.training_id,
        checkpoint=checkpoint,
        num_classes=10,
        axes=model_axes(job_.spec, checkpoint),
    )
    definitions = steps.metric_definitions(job_.evaluation, job_.spec.threat)
    metrics = {"clean_train": 1.0, "clean_test": 0.1 + 0.2, "gap": seed / 7}
    measures = {
        "x_grad_norm": {"value": 1e-30 * (seed + 1), "se": 1 / 3, "reason": None},
        "path_norm": {"value": None, "se": None, "reason": "overflow at layer 3"},
        **{f"m{i}": {"value": (seed + i) / 13, "se": None, "reason": None} for i in range(12)},
    }
    return fresh | {
        "status": "done",
        "metrics": {k: {"value": v, "definition": definitions[k]} for k, v in metrics.items()},
        "measures": {k: {**v, "definition": "d"} for k, v in measures.items()},
        "costs": {"train_seconds": 12.5, "measure_seconds": {"m0": 0.125}},
        "provenance": {"host": "node1", "attempt": 1, "training": {"best_epoch": 3}},
        **changes,
    }


def write_history(store: Store, job_: Job, records: list[dict[str, Any]]) -> Path:
    path = store.training(job_.training_id) / "history.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def study(root: Path, trainings: int, tracking: TrackingSettings, name: str = STUDY) -> Store:
    """A finished study of ``2 * trainings`` models, with manifest, histories and rows."""
    store = Store(root)
    jobs = [job(number, tracking, name) for number in range(trainings)]
    manifest.append(store, name, jobs)
    for number, job_ in enumerate(jobs):
        write_history(store, job_, history(number))
        for checkpoint in job_.checkpoints:
            store.write_row(row(job_, checkpoint))
    return store
