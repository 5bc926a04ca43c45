"""What was run: the grid, the models, failures, costs and provenance."""

from __future__ import annotations

import pandas as pd

from sweep.analysis.report.levels import grid
from sweep.analysis.report.markup import Markup, data_table, join, tag
from sweep.analysis.study import Analysis
from sweep.analysis.table import axis_names, level_name
from sweep.analysis.wording import compact, count, duration, percent

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
    return join((tag("p", rests), levels))


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
    """Models without a result, grouped by reason."""
    failed = analysis.table[analysis.table["status"] != "done"]
    if failed.empty:
        return tag("p", "Every planned model finished.")
    reasons = failed["reason"].fillna("no reason recorded").astype(str)
    groups = sorted(
        failed.assign(reason=reasons).groupby(["status", "reason"])["model_id"],
        key=lambda item: -len(item[1]),
    )
    rows = [
        (str(status), tag("span", str(reason), class_="mono"), len(ids), str(ids.iloc[0]))
        for (status, reason), ids in groups
    ]
    return data_table(["status", "reason", "models", "for example"], rows)


def costs(analysis: Analysis) -> Markup:
    """Total, median and maximum of every recorded cost."""
    columns = [c for c in map(str, analysis.table.columns) if c.startswith("cost/")]
    rows: list[tuple[str | int, ...]] = []
    for column in columns:
        values = pd.to_numeric(analysis.table[column], errors="coerce").dropna()
        if values.empty:
            continue
        name = column.removeprefix("cost/")
        write = duration if "seconds" in name else compact
        cells = [
            write(v) for v in (float(values.sum()), float(values.median()), float(values.max()))
        ]
        rows.append((name, *cells, len(values)))
    if not rows:
        return tag("p", "This table records no costs.", class_="note")
    return data_table(["cost", "sum over models", "median", "largest", "models"], rows)


def provenance(analysis: Analysis) -> Markup:
    """Each recorded fact with its values and how many models have it."""
    columns = [c for c in map(str, analysis.table.columns) if c.startswith("provenance/")]
    entries = []
    for column in columns:
        counts = analysis.table[column].dropna().astype(str).value_counts()
        values = [
            f"{value} ({n})" if len(counts) > 1 else str(value) for value, n in counts.items()
        ]
        if len(values) > 6:
            values = [*values[:6], f"and {len(values) - 6} more"]
        entries.append(
            join(
                (
                    tag("dt", column.removeprefix("provenance/")),
                    tag("dd", " · ".join(values) or "–"),
                )
            )
        )
    if not entries:
        return tag("p", "This table records no provenance.", class_="note")
    return tag("dl", *entries)
