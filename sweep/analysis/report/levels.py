"""The axes of a study and their levels, in the order to show them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sweep.analysis.study import Analysis
from sweep.analysis.table import axis_names
from sweep.axes import level_name, level_order


def ordered_levels(column: pd.Series[Any]) -> list[str]:
    """The levels of an axis as names, in the order to show them; null last."""
    return [level_name(level) for level in sorted(column.unique().tolist(), key=level_order)]


def groupings(analysis: Analysis) -> dict[str, pd.Series[Any]]:
    """What the used models can be coloured by: the axes that vary, or else all models as one."""
    used = analysis.used
    if not analysis.axes:
        return {"study": pd.Series("all models", index=used.index)}
    return {axis: used[axis] for axis in analysis.axes}


def grid(table: pd.DataFrame) -> list[tuple[str, list[tuple[str, int]]]]:
    """For every axis, its levels with their number of models."""
    return [
        (axis, [(level, int((table[axis].map(level_name) == level).sum())) for level in levels])
        for axis in axis_names(table)
        for levels in [ordered_levels(table[axis])]
    ]
