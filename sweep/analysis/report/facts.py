"""What was run: the grid, the models, failures, costs and provenance."""

from __future__ import annotations

from typing import Any

import pandas as pd

from sweep.analysis.report.levels import grid
from sweep.analysis.report.markup import Markup, data_table, join, tag
from sweep.analysis.study import Analysis
from sweep.analysis.table import MEASURE, axis_names
from sweep.analysis.wording import compact, count, duration, percent
from sweep.axes import level_name

_VALUES_SHOWN = 6
_ACCURACIES = ("clean_train", "clean_test", "pgd_train", "pgd_test", "gap")


def what_was_run(analysis: Analysis) -> Markup:
    """Axes with their levels, and which models the analysis rests on."""
    table = analysis.table
    levels = tag(
        "dl",
        *(
            join((tag("dt", axis), tag("dd", " · ".join(f"{level} ({n})" for level, n in entries))))
            for axis, entries in grid(table)
        ),
    )
    gone = "; ".join(f"{reason}: {n}" for reason, n in analysis.removed.items() if n)
    rests = (
        f"{count(len(table), 'model')} from {count(table['training_id'].nunique(), 'training')}; "
        f"the coefficients rest on {len(analysis.used):,} of them"
        + (f" (left out: {gone})." if gone else ".")
    )
    return join((tag("p", rests), _seeds(analysis), _masking(analysis), levels))


def _seeds(analysis: Analysis) -> Markup | None:
    """That the seed is an axis, and what follows from it."""
    if analysis.unit != "setting":
        return None
    return tag(
        "p", "The seed is an axis of this study, so models of each count. Those that differ in "
        "nothing but seed and checkpoint are not independent: intervals resample settings."
    )  # fmt: skip


def _masking(analysis: Analysis) -> Markup | None:
    """How many models masking took from each level of each axis: an uneven loss is a bias."""
    frame = analysis.masking_by_level
    if frame.empty:
        return None
    note = (
        "Models set apart as masking: another attack contradicts their robust accuracy. Where one "
        "level of an axis loses more than another, the coefficients rest on a biased part of the "
        "grid; they stand below with these models kept, too."
    )
    keys = [[entry[column] for column in frame.columns] for entry in frame.to_dict("records")]
    rows = [[*key[:-1], percent(key[-1])] for key in keys]
    headings = ["axis", "level", "models", "masking", "share"]
    return join((tag("p", note, class_="note"), data_table(headings, rows, sort_keys=keys)))


def models(analysis: Analysis) -> Markup:
    """Every model with its settings and accuracies."""
    table = analysis.table
    shown = [c for c in _ACCURACIES if c in table.columns]
    axes = axis_names(table)
    settings = [table[axis].map(level_name) for axis in axes]
    accuracies = [table[column].astype(float).map(percent) for column in shown]
    columns = [table["model_id"].astype(str), *settings, table["status"], *accuracies]
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return data_table(
        ["model", *axes, "status", *shown], rows, filter_label="Filter models, e.g. trades 64"
    )


def failures(analysis: Analysis) -> Markup:
    """Models without a result, and measures without a value, grouped by reason."""
    return join((_failed_models(analysis.table), _undefined_measures(analysis)))


def _failed_models(table: pd.DataFrame) -> Markup:
    failed = table[table["status"] != "done"]
    if failed.empty:
        return tag("p", "Every planned model finished.")
    reasons = failed["reason"].fillna("–").astype(str)
    groups = sorted(
        failed.assign(reason=reasons).groupby(["status", "reason"])["model_id"],
        key=lambda item: -len(item[1]),
    )
    rows = [
        (str(status), tag("span", str(reason), class_="mono"), len(ids), str(ids.iloc[0]))
        for (status, reason), ids in groups
    ]
    return data_table(["status", "reason", "models", "for example"], rows)


def _undefined_measures(analysis: Analysis) -> Markup | None:
    """Measures that some of the used models have no value of, and why."""
    rows = []
    for name in map(str, analysis.main.index):
        missing = analysis.used[analysis.used[MEASURE + name].isna()]
        if missing.empty:
            continue
        column = f"{MEASURE}{name}.reason"
        if column in missing.columns:
            reasons = missing[column].fillna("not measured").astype(str)
        else:
            reasons = pd.Series("not measured", index=missing.index)
        for reason, number in reasons.value_counts().items():
            rows.append((tag("b", name), tag("span", str(reason), class_="mono"), int(number)))
    if not rows:
        return None
    heading = tag("h3", "Measures without a value")
    return join((heading, data_table(["measure", "reason", "models"], rows)))


def costs(analysis: Analysis) -> Markup:
    """Total, median and maximum of every recorded cost.

    What both checkpoints of a training have in common (the training's time) counts once.
    """
    columns = [c for c in map(str, analysis.table.columns) if c.startswith("cost/")]
    rows: list[tuple[str | int, ...]] = []
    keys: list[tuple[str | float, ...]] = []
    for column in columns:
        once = analysis.table[["training_id", column]].dropna().drop_duplicates()
        values = pd.to_numeric(once[column], errors="coerce").dropna()
        if values.empty:
            continue
        name = column.removeprefix("cost/")
        write = duration if "seconds" in name else compact
        numbers = [float(values.sum()), float(values.median()), float(values.max())]
        rows.append((name, *map(write, numbers), len(values)))
        keys.append((name, *numbers, len(values)))
    if not rows:
        return tag("p", "This table records no costs.", class_="note")
    headings = ["cost", "sum", "median", "largest", "values"]
    return data_table(headings, rows, sort_keys=keys)


def provenance(analysis: Analysis) -> Markup:
    """Each recorded fact with its values and how many models have it."""
    columns = [c for c in map(str, analysis.table.columns) if c.startswith("provenance/")]
    entries = [
        join((tag("dt", column.removeprefix("provenance/")), tag("dd", written)))
        for column in columns
        if (written := _values(analysis.table[column]))
    ]
    if not entries:
        return tag("p", "This table records no provenance.", class_="note")
    return tag("dl", *entries)


def _values(column: pd.Series[Any]) -> str:
    """The distinct values with their counts; how many there are, if many; empty if none."""
    counts = column.dropna().map(level_name).value_counts()
    if len(counts) > _VALUES_SHOWN:
        return f"{len(counts)} different values"
    several = len(counts) > 1
    return " · ".join(f"{value} ({n})" if several else str(value) for value, n in counts.items())
