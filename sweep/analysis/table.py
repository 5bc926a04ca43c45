"""What the analysis reads from a study's table (``models.parquet``, one row per model).

The columns are fixed in ``docs/statistics.md``. Everything below works on ranks and on level
codes, so no statistic depends on the scale of a measure or on the type of an axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sweep import schema
from sweep.axes import AXES, OPTIONS

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MEASURE = "measure/"
TARGETS = ("gap", "pgd_test", "clean_gap", "aa_gap")
_KEYS = frozenset(field.name for field in fields(schema.Options))
_PREFIXES = (MEASURE, "cost/", "provenance/")
_BOOKKEEPING = frozenset(
    {"model_id", "training_id", "row_digest", "status", "reason", "num_classes", "masking"}
)


def measure_names(table: pd.DataFrame) -> list[str]:
    """Names of the measures, without prefix, in the order of the columns."""
    return [
        column.removeprefix(MEASURE)
        for column in map(str, table.columns)
        if column.startswith(MEASURE) and not column.endswith((".se", ".reason"))
    ]


def axis_names(table: pd.DataFrame) -> list[str]:
    """The columns that describe a model's setting: the paper's eight axes, then further options.

    A further option is one of ``OPTIONS``, or any column that is neither bookkeeping, nor
    prefixed, nor a reason, and that either is named like a configuration key, at top level or with
    a dot (``training.lr``), or holds something else than fractions: as metrics do.
    """
    further = [
        column
        for column in map(str, table.columns)
        if column not in AXES
        and column not in _BOOKKEEPING
        and not column.startswith(_PREFIXES)
        and not column.endswith(".reason")
        and (
            column in OPTIONS
            or column in _KEYS
            or "." in column
            or not pd.api.types.is_float_dtype(table[column].dtype)
        )
    ]
    return [axis for axis in AXES if axis in table.columns] + further


def varied_axes(table: pd.DataFrame) -> list[str]:
    """The axes with at least two levels; null (``steps`` of standard) is not counted as one."""
    return [axis for axis in axis_names(table) if table[axis].nunique(dropna=True) >= 2]


def setting_numbers(table: pd.DataFrame, *without: str) -> Ints:
    """(n,) equal numbers where all axes but ``without`` are equal; null is a level of its own."""
    axes = [axis for axis in axis_names(table) if axis not in without]
    if not axes:
        return np.zeros(len(table), dtype=np.int64)
    return np.asarray(table.groupby(axes, dropna=False).ngroup(), dtype=np.int64)


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The models an analysis may rest on: status ``done`` and better than chance.

    Better than chance: clean test accuracy above ``1.5 / num_classes``. How many rows went, and
    why, is in ``.attrs["removed"]``: ``{"not done": ..., "at chance": ...}``, and where models have
    no accuracy (they were evaluated with other options than the rest) ``"no clean_test"``.
    """
    require_columns(table, "status", "clean_test", "num_classes")
    done = (table["status"] == "done").to_numpy(dtype=bool)
    accuracy = table["clean_test"].to_numpy(dtype=float, na_value=np.nan)
    chance = 1.5 / table["num_classes"].to_numpy(dtype=float, na_value=np.nan)
    better = accuracy > chance
    unknown = int((done & np.isnan(accuracy)).sum())
    kept = table[done & better].copy()
    kept.attrs["removed"] = {
        "not done": int((~done).sum()),
        "at chance": int((done & ~better).sum()) - unknown,
    } | ({"no clean_test": unknown} if unknown else {})
    return kept


def standard_rows(table: pd.DataFrame) -> Bools:
    """Models trained without inner maximisation: null ``steps`` (or the method's name).

    How an imported model was trained is not known: it is none of them.
    """
    if "steps" in table.columns:
        here = table["method"] != "imported" if "method" in table.columns else True
        return (table["steps"].isna() & here).to_numpy(dtype=bool)
    if "method" in table.columns:
        return (table["method"] == "standard").to_numpy(dtype=bool)
    return np.zeros(len(table), dtype=bool)


def require_columns(table: pd.DataFrame, *columns: str) -> None:
    """Raise ``ValueError`` that names the missing ``columns``."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"the table has no column {', '.join(map(repr, missing))}")


@dataclass(frozen=True)
class Sample:
    """A table in the form that the statistics read: n models, M measures.

    ``x`` (n, M) and ``y`` (n,) are dense ranks, NaN where there is no value; ``target_values``
    (n,) are what ``y`` ranks. ``trainings`` (n,) numbers the training of each model, and rows
    are sorted by it; where models have several seeds, it numbers their settings (seed and
    checkpoint left out), since replicates are no independent evidence. It is what is resampled.
    ``codes[axis]`` (n,) indexes ``levels[axis]``; null is -1. ``axes`` are those asked for,
    ``codes`` has all that the table knows: "only k varies" is a statement about every axis.
    ``no_cells`` says why models cannot be compared along one axis while another is held; None if
    they can.
    """

    measures: tuple[str, ...]
    target: str
    axes: tuple[str, ...]
    x: Floats
    y: Floats
    model_ids: tuple[str, ...]
    target_values: Floats
    trainings: Ints
    codes: dict[str, Ints]
    levels: dict[str, tuple[Any, ...]]
    standard: Bools
    no_cells: str | None

    @property
    def num_trainings(self) -> int:
        return int(self.trainings.max()) + 1

    def trainings_with_value(self, rows: Bools | None = None) -> Ints:
        """(M,) trainings among ``rows`` (default: all) of which measure and target are known.

        They, and not all trainings of the study, are what an error of that measure rests on.
        """
        known = ~np.isnan(self.x) & ~np.isnan(self.y)[:, None]
        if rows is not None:
            known &= rows[:, None]
        return np.array([len(np.unique(self.trainings[column])) for column in known.T], dtype=int)


def sample(
    table: pd.DataFrame,
    *,
    target: str = "gap",
    axes: Sequence[str] | None = None,
    predictors: Sequence[str] = (),
) -> Sample:
    """Check ``table`` and turn it into a :class:`Sample`.

    ``predictors`` are further columns (``pgd_train``) that are ranked like measures, under their
    own names, after them.

    Raises:
        ValueError: no such target or axis; no measure; fewer than two models with a target;
            no value at all.
    """
    names = measure_names(table)
    if not names:
        raise ValueError(f"the table has no measure: no column starts with {MEASURE!r}")
    if target not in table.columns:
        present = [t for t in TARGETS if t in table.columns]
        raise ValueError(
            f"the table has no target {target!r}; it has: {', '.join(present) or 'no target'}"
        )
    require_columns(table, "model_id", "training_id", *predictors)
    known = axis_names(table)
    for axis in axes or ():
        if axis not in known:
            raise ValueError(f"{axis!r} is no axis of this table; choose from: {', '.join(known)}")
    table = table[table[target].notna()]
    if len(table) < 2:
        raise ValueError(
            f"{len(table)} model(s) with a value of {target!r}: a correlation needs at least two"
        )
    varied = varied_axes(table)
    columns = [MEASURE + name for name in names] + list(predictors)
    trainings = _independent(table)
    order = np.argsort(trainings, kind="stable")
    table = table.iloc[order]
    values = np.column_stack([_numeric(table[column]) for column in columns])
    if np.isnan(values[:, : len(names)]).all():
        raise ValueError(
            f"every value of every measure is NaN ({len(names)} measures, {len(table)} models)"
        )
    codes, levels = _code_axes(table, known)
    target_values = _numeric(table[target])
    return Sample(
        measures=(*names, *predictors),
        target=target,
        axes=tuple(varied if axes is None else axes),
        x=np.column_stack([dense_ranks(column) for column in values.T]),
        y=dense_ranks(target_values),
        model_ids=tuple(table["model_id"].astype(str)),
        target_values=target_values,
        trainings=trainings[order],
        codes=codes,
        levels=levels,
        standard=standard_rows(table),
        no_cells=_no_cells(varied),
    )


def _independent(table: pd.DataFrame) -> Ints:
    """(n,) the number of each row's training or, with several seeds, of its setting."""
    trainings, _ = pd.factorize(table["training_id"])
    if "seed" in table.columns and table["seed"].nunique() >= 2:
        setting = pd.Series(setting_numbers(table, "seed", "early_stopping"))
        trainings, _ = pd.factorize(setting.groupby(trainings).transform("first"))
    return trainings.astype(np.int64)


def _no_cells(varied: Sequence[str]) -> str | None:
    if len(varied) >= 2:
        return None
    found = f"only {varied[0]} varies" if varied else "no axis varies"
    return f"{found} in this study, and ψ compares models along one axis while another is held"


def dense_ranks(values: Floats) -> Floats:
    """0, 1, 2, ... with equal values sharing a rank; NaN stays NaN, infinities rank last."""
    ranks = np.full(values.shape, np.nan)
    known = ~np.isnan(values)
    ranks[known] = np.unique(values[known], return_inverse=True)[1]
    return ranks


def _numeric(column: pd.Series[Any]) -> Floats:
    try:
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"column {column.name!r} does not hold numbers: {error}") from error


def _code_axes(
    table: pd.DataFrame, axes: Sequence[str]
) -> tuple[dict[str, Ints], dict[str, tuple[Any, ...]]]:
    codes, levels = {}, {}
    for axis in axes:
        code, level = pd.factorize(table[axis], sort=True)
        codes[axis] = code.astype(np.int64)
        levels[axis] = tuple(level)
    return codes, levels
