"""How a study is cut into parts that one W&B workspace can show: it shows 1,000 runs at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

LIMIT = 1000  # exclusive: https://docs.wandb.ai/guides/track/limits
FAILED = ("diverged", "oom", "failed")
FIRST_AXES = ("architecture", "method")
OTHER_AXES = ("early_stopping", "extra_data", "augmentation", "optimizer", "batch_size")


@dataclass(frozen=True)
class Slice:
    """Models that have these levels. ``failed``: those without a result, whatever their levels."""

    levels: tuple[tuple[str, Any], ...]
    runs: int
    failed: bool = False

    @property
    def title(self) -> str:
        """Words without "=", which W&B refuses in a view's name."""
        if self.failed:
            return "failures"
        return ", ".join(f"{axis} {level}" for axis, level in self.levels) or "all models"


def slices(table: pd.DataFrame, limit: int = LIMIT) -> list[Slice]:
    """One slice per architecture and per method, and the failures, each under ``limit`` runs.

    What is too large is cut further along the other axes. A study that fits is also shown whole.
    """
    shown = table[table["status"].isin(["done", "running", *FAILED])]
    found = [Slice((), len(shown))] if 0 < len(shown) < limit else []
    for axis in FIRST_AXES:
        rest = [a for a in (*FIRST_AXES, *OTHER_AXES) if a != axis]
        for level, part in shown.groupby(axis):
            found += _cut(part, ((axis, _plain(level)),), rest, limit)
    failed = int(shown["status"].isin(FAILED).sum())
    if failed:
        found.append(Slice((), failed, failed=True))
    return found


def _cut(
    part: pd.DataFrame, levels: tuple[tuple[str, Any], ...], axes: Sequence[str], limit: int
) -> list[Slice]:
    if len(part) < limit:
        return [Slice(levels, len(part))]
    axis = next((a for a in axes if part[a].nunique() > 1), None)
    if axis is None:
        raise ValueError(
            f"{len(part)} models with {dict(levels)} do not differ in any axis of the grid; a W&B "
            f"view shows fewer than {limit}"
        )
    rest = [a for a in axes if a != axis]
    return [
        smaller
        for level, sub in part.groupby(axis)
        for smaller in _cut(sub, (*levels, (axis, _plain(level))), rest, limit)
    ]


def _plain(level: Any) -> Any:
    """NumPy's numbers and booleans as Python's."""
    return level.item() if hasattr(level, "item") else level
