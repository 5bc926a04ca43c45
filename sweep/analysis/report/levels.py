"""The axes of a study and their levels, in the order to show them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sweep.analysis.table import axis_names, level_name

# The order in which people list them; levels not named here follow, sorted.
_ORDER = ("standard", "at", "trades", "mart", "none", "sgd", "false")


def ordered_levels(column: pd.Series[Any]) -> list[str]:
    """The levels of an axis as names, in the order to show them; null last."""
    values = column.drop_duplicates()
    known = sorted(values.dropna().tolist(), key=_level_order)
    return [level_name(v) for v in known] + (["null"] if values.isna().any() else [])


def _level_order(level: object) -> tuple[int, float, str]:
    name = level_name(level)
    place = _ORDER.index(name) if name in _ORDER else len(_ORDER)
    is_number = isinstance(level, int | float | np.number) and not isinstance(
        level, bool | np.bool_
    )
    return (place, float(level) if is_number else 0.0, name)  # type: ignore[arg-type]


def grid(table: pd.DataFrame) -> list[tuple[str, list[tuple[str, int]]]]:
    """For every axis, its levels with their number of models."""
    return [
        (axis, [(level, int((table[axis].map(level_name) == level).sum())) for level in levels])
        for axis in axis_names(table)
        for levels in [ordered_levels(table[axis])]
    ]
