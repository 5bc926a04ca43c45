"""Synthetic studies: tables like ``models.parquet`` with known contents."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

PAPER: dict[str, Sequence[Any]] = {
    "architecture": ("resnet18", "wrn28_10", "wrn34_10"),
    "method": ("standard", "at", "trades", "mart"),
    "steps": (1, 10),
    "optimizer": ("sgd", "awp"),
    "batch_size": (32, 64, 128, 256),
    "augmentation": ("none", "crop_flip"),
    "extra_data": (False, True),
    "early_stopping": (False, True),
}
SMALL: dict[str, Sequence[Any]] = {
    **{axis: levels[:1] for axis, levels in PAPER.items()},
    "method": PAPER["method"],
    "steps": (1, 10),
    "batch_size": (32, 64),
    "early_stopping": (False, True),
}
LARGER = {**SMALL, "architecture": ("resnet18", "wrn28_10")}


def settings(levels: Mapping[str, Sequence[Any]] = PAPER) -> pd.DataFrame:
    """One row per model of the grid: ids, status and axes; ``steps`` of standard is null."""
    return _settings(tuple((axis, tuple(choices)) for axis, choices in levels.items())).copy()


@cache
def _settings(grid: tuple[tuple[str, tuple[Any, ...]], ...]) -> pd.DataFrame:
    levels = dict(grid)
    points = [
        dict(zip(levels, point, strict=True)) for point in itertools.product(*levels.values())
    ]
    for point in points:
        if point["method"] == "standard":
            point["steps"] = None
    table = pd.DataFrame(points).drop_duplicates(ignore_index=True)
    table["steps"] = table["steps"].astype("Int64")
    trainings = table.groupby([a for a in levels if a != "early_stopping"], dropna=False).ngroup()
    table.insert(0, "training_id", trainings.map("{:016x}".format))
    ends = table["early_stopping"].map({True: "-best", False: "-last"})
    table.insert(0, "model_id", table["training_id"] + ends)
    return table.assign(status="done", reason=None, num_classes=10, masking=False)


def study(
    values: Mapping[str, Any], levels: Mapping[str, Sequence[Any]] = PAPER, **metrics: Any
) -> pd.DataFrame:
    """:func:`settings` with measures ``values`` and metrics (``gap=...``)."""
    columns = {"clean_test": 0.9, **metrics, **{f"measure/{name}": v for name, v in values.items()}}
    return pd.concat([table := settings(levels), pd.DataFrame(columns, index=table.index)], axis=1)


def noise(seed: int, levels: Mapping[str, Sequence[Any]] = PAPER) -> np.ndarray:
    """Standard normal numbers, one per model of the grid."""
    return np.random.default_rng(seed).normal(size=len(settings(levels)))
