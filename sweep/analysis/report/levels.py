"""The axes of a study and their levels, in the order to show them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sweep.analysis.table import axis_names
from sweep.axes import level_name, level_order


def ordered_levels(column: pd.Series[Any]) -> list[str]:
    """The levels of an axis as names, in the order to show them; null last."""
    return [level_name(level) for level in sorted(column.unique().tolist(), key=level_order)]


def grid(table: pd.DataFrame) -> list[tuple[str, list[tuple[str, int]]]]:
    """For every axis, its levels with their number of models."""
    return [
        (axis, [(level, int((table[axis].map(level_name) == level).sum())) for level in levels])
        for axis in axis_names(table)
        for levels in [ordered_levels(table[axis])]
    ]
