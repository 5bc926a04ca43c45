"""Seed replicates: how far do the gap and the measures move when only the seed changes?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from sweep.analysis.table import MEASURE, Floats, Ints, measure_names, setting_numbers

_WHOLE = 0.9  # share of the main seed's settings that another seed of the grid has at least


def split_seeds(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The grid's own models, and the replicates: those of seeds that only a part of it has.

    The main seed is the one with most models, the smallest of several. Another that has nine
    tenths of the main seed's settings or more is a level of the grid like it: the seed is an axis.
    Models that did not finish are rows too, so the split does not change while a study runs.
    """
    if "seed" not in table.columns or table["seed"].nunique() < 2:
        return table, table.head(0)
    counts = table["seed"].value_counts()
    main = counts[counts == counts.max()].index.min()
    settings = pd.Series(setting_numbers(table, "seed")).groupby(table["seed"].to_numpy())
    covered = settings.agg(lambda those: np.isin(settings.get_group(main), those).mean())
    replicate = ~table["seed"].isin(covered.index[covered >= _WHOLE]).to_numpy(dtype=bool)
    return table[~replicate], table[replicate]


def seed_noise(
    used: pd.DataFrame, replicates: pd.DataFrame, *, target: str = "gap"
) -> pd.DataFrame:
    """What the seed alone does to the target and to every measure; empty where there is one seed.

    ``used`` and ``replicates`` are models that count (:func:`sweep.analysis.select`). Indexed by
    ``target`` and measure names, with columns

    * ``settings``: settings with at least two seeds; ``models``: models in them
    * ``sd``: standard deviation between seeds, pooled over settings
    * ``spread``: standard deviation over the ``used`` models; ``ratio``: sd / spread
    * ``below``: share of pairs of ``used`` models that differ by less than ``sd``
    """
    table = pd.concat([used, replicates]) if len(replicates) else used
    if "seed" not in table.columns or table["seed"].nunique() < 2:
        return pd.DataFrame(columns=["settings", "models", "sd", "spread", "ratio", "below"])
    setting = setting_numbers(table, "seed")
    columns = {target: target} | {name: MEASURE + name for name in measure_names(table)}
    rows = {
        name: _row(
            table[column].to_numpy(dtype=float, na_value=np.nan),
            used[column].to_numpy(dtype=float, na_value=np.nan),
            setting,
        )
        for name, column in columns.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _row(values: Floats, used: Floats, setting: Ints) -> dict[str, float]:
    grouped = pd.Series(values).where(np.isfinite(values)).groupby(setting)
    counts = grouped.count()
    repeated = counts >= 2
    freedom = (counts[repeated] - 1).sum()
    squares = (grouped.var(ddof=1)[repeated] * (counts[repeated] - 1)).sum()
    sd = float(np.sqrt(squares / freedom)) if freedom else np.nan
    used = np.sort(used[np.isfinite(used)])
    spread = float(np.std(used, ddof=1)) if len(used) > 1 else np.nan
    return {
        "settings": int(repeated.sum()),
        "models": int(counts[repeated].sum()),
        "sd": sd,
        "spread": spread,
        "ratio": sd / spread if spread > 0 else np.nan,
        "below": _share_of_pairs_below(used, sd),
    }


def _share_of_pairs_below(ordered: Floats, difference: float) -> float:
    """Share of all pairs of ``ordered`` values that are closer than ``difference``."""
    n = len(ordered)
    if n < 2 or np.isnan(difference):
        return np.nan
    reach = np.searchsorted(ordered, ordered + difference, side="left")
    closer = np.maximum(reach - np.arange(n) - 1, 0).sum()
    return float(closer / (n * (n - 1) / 2))
