"""Seed replicates: how far do the gap and the measures move when only the seed changes?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sweep.analysis.table import MEASURE, Floats, Ints, axis_names, measure_names


def split_seeds(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The grid's own models, and the replicates: rows with another than the main seed.

    The main seed is the one with most models, the smallest of several.
    """
    if "seed" not in table.columns or table["seed"].nunique() < 2:
        return table, table.head(0)
    counts = table["seed"].value_counts()
    main = counts[counts == counts.max()].index.min()
    replicate = (table["seed"] != main).to_numpy(dtype=bool)
    return table[~replicate], table[replicate]


def seed_noise(table: pd.DataFrame, *, target: str = "gap") -> pd.DataFrame:
    """What the seed alone does to the target and to every measure; empty without replicates.

    Indexed by ``target`` and measure names, with columns

    * ``settings``: settings with at least two seeds; ``models``: models in them
    * ``sd``: standard deviation between seeds, pooled over settings
    * ``spread``: standard deviation over the models of the main seed; ``ratio``: sd / spread
    * ``below``: share of pairs of models of the main seed that differ by less than ``sd``
    """
    main, replicates = split_seeds(table)
    if replicates.empty:
        return pd.DataFrame(columns=["settings", "models", "sd", "spread", "ratio", "below"])
    axes = [axis for axis in axis_names(table) if axis != "seed"]
    setting = np.asarray(table.groupby(axes, dropna=False).ngroup(), dtype=np.int64)
    columns = {target: target} | {name: MEASURE + name for name in measure_names(table)}
    rows = {
        name: _row(
            table[column].to_numpy(dtype=float, na_value=np.nan),
            main[column].to_numpy(dtype=float, na_value=np.nan),
            setting,
        )
        for name, column in columns.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _row(values: Floats, main: Floats, setting: Ints) -> dict[str, float]:
    grouped = pd.Series(values).where(np.isfinite(values)).groupby(setting)
    counts = grouped.count()
    repeated = counts >= 2
    freedom = (counts[repeated] - 1).sum()
    squares = (grouped.var(ddof=1)[repeated] * (counts[repeated] - 1)).sum()
    sd = float(np.sqrt(squares / freedom)) if freedom else np.nan
    main = np.sort(main[np.isfinite(main)])
    spread = float(np.std(main, ddof=1)) if len(main) > 1 else np.nan
    return {
        "settings": int(repeated.sum()),
        "models": int(counts[repeated].sum()),
        "sd": sd,
        "spread": spread,
        "ratio": sd / spread if spread > 0 else np.nan,
        "below": _share_of_pairs_below(main, sd),
    }


def _share_of_pairs_below(ordered: Floats, difference: float) -> float:
    """Share of all pairs of ``ordered`` values that are closer than ``difference``."""
    n = len(ordered)
    if n < 2 or np.isnan(difference):
        return np.nan
    reach = np.searchsorted(ordered, ordered + difference, side="left")
    closer = np.maximum(reach - np.arange(n) - 1, 0).sum()
    return float(closer / (n * (n - 1) / 2))
