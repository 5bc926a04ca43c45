"""Which models a study's coefficients rest on, and why the others do not count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sweep.analysis.seeds import split_seeds
from sweep.analysis.table import Bools, axis_names, usable
from sweep.axes import level_name, level_order


@dataclass(frozen=True)
class Selection:
    """``used``: usable models of the grid that do not mask. ``masking``: those that do: their
    robust accuracy is contradicted by another attack. ``replicates``: usable models that do not
    mask, of seeds that only a part of the grid has (:func:`sweep.analysis.seeds.split_seeds`).
    ``removed``: reason -> models."""

    used: pd.DataFrame
    masking: pd.DataFrame
    replicates: pd.DataFrame
    removed: dict[str, int]

    @property
    def with_masking(self) -> pd.DataFrame:
        """The models that would count if none was set apart as masking."""
        return pd.concat([self.used, self.masking]).sort_index() if len(self.masking) else self.used

    @property
    def masking_by_level(self) -> pd.DataFrame:
        """How evenly masking takes models away: ``axis level models masking share``.

        One row per level of every axis with several, null included: the usable models there, how
        many of them mask, and which share that is. Empty if none masks.
        """
        rows = []
        table = self.with_masking
        masks = _flagged(table)
        for axis in axis_names(table) if masks.any() else []:
            levels = sorted(table[axis].unique(), key=level_order)
            names = table[axis].map(level_name).to_numpy()
            for level in levels if len(levels) >= 2 else []:
                here = names == level_name(level)
                rows.append((axis, level_name(level), int(here.sum()), int((here & masks).sum())))
        frame = pd.DataFrame(rows, columns=["axis", "level", "models", "masking"])
        return frame.assign(share=frame["masking"] / frame["models"])


def select(table: pd.DataFrame) -> Selection:
    """Split a study's table.

    Raises:
        ValueError: no model is left.
    """
    own, replicates = split_seeds(table)
    counted = usable(own)
    masks = _flagged(counted)
    used = counted[~masks]
    removed = counted.attrs["removed"] | {
        "masking": int(masks.sum()),
        "seed replicates": len(replicates),
    }
    if used.empty:
        gone = ", ".join(f"{reason}: {n}" for reason, n in removed.items() if n)
        raise ValueError(f"no usable model among {len(table)} ({gone}): nothing to correlate")
    again = usable(replicates)
    return Selection(used, counted[masks], again[~_flagged(again)], removed)


def _flagged(table: pd.DataFrame) -> Bools:
    if "masking" not in table.columns:
        return np.zeros(len(table), dtype=bool)
    # blank: not checked, or not as the column asks (counted in the warnings); never flagged
    return table["masking"].fillna(value=False).to_numpy(dtype=bool)
