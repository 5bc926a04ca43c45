"""The interactive scatter plot: its controls, and the data that the page's script draws."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from sweep.analysis.report.levels import groupings, ordered_levels
from sweep.analysis.report.markup import Markup, embedded_json, tag
from sweep.analysis.study import Analysis
from sweep.analysis.table import MEASURE, TARGETS, axis_names, standard_rows
from sweep.analysis.wording import signed
from sweep.axes import level_name


def scatter(analysis: Analysis) -> Markup:
    """Controls, the plot, and a small multiple of every measure to choose from."""
    names = [str(name) for name in analysis.main.index]
    groups = list(groupings(analysis))
    colour = "method" if "method" in groups else groups[0]
    controls = tag(
        "div",
        _choice("measure", "Measure", names, names[0]),
        _choice("target", "Against", _targets(analysis), analysis.target),
        _choice("colour", "Coloured by", groups, colour),
        _choice("scale", "Scale", ["value", "rank"], "value"),
        tag(
            "label",
            tag("input", type="checkbox", id="standard", checked=True),
            "models trained without an adversary",
            hidden=not analysis.standard,
        ),
        class_="controls",
    )
    return Markup(
        controls
        + tag(
            "div", id="plot", role="img", aria_label="Scatter plot of a measure against the target"
        )
        + tag("h3", "Every measure at a glance")
        + tag(
            "p", "Ranks against ranks, strongest τ first. Choose one to enlarge it.", class_="note"
        )
        + tag("div", id="gallery", class_="gallery")
    )


def _targets(analysis: Analysis) -> list[str]:
    present = [t for t in TARGETS if t in analysis.used.columns and analysis.used[t].notna().any()]
    return [analysis.target, *(t for t in present if t != analysis.target)]


def _choice(identifier: str, label: str, options: Iterable[str], chosen: str) -> Markup:
    items = (tag("option", option, value=option, selected=option == chosen) for option in options)
    return tag("label", label, tag("select", *items, id=identifier))


def page_data(analysis: Analysis) -> Markup:
    """The used models as JSON: one array per axis (indices into its levels), measure, target."""
    used = analysis.used
    columns = {axis: used[axis] for axis in axis_names(used)} | groupings(analysis)
    axes = {axis: ordered_levels(column) for axis, column in columns.items()}
    return embedded_json(
        "data",
        {
            "ids": used["model_id"].astype(str).tolist(),
            "standard": standard_rows(used).tolist(),
            "levels": axes,
            "axes": {axis: _codes(columns[axis], levels) for axis, levels in axes.items()},
            "targets": {target: numbers(used[target]) for target in _targets(analysis)},
            "measures": {str(m): numbers(used[MEASURE + m]) for m in analysis.main.index},
            "tau": {str(m): signed(row["tau"]) for m, row in analysis.main.iterrows()},
        },
    )


def _codes(column: pd.Series[Any], levels: list[str]) -> list[int]:
    index = {level: k for k, level in enumerate(levels)}
    return [index[level_name(value)] for value in column]


def numbers(column: pd.Series[Any]) -> list[float | None]:
    """Six significant digits, null where there is no finite value: JSON has neither NaN nor inf."""
    values = column.to_numpy(dtype=float, na_value=math.nan)
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in values]
