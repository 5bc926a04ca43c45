"""Coefficients as a forest plot in a table, and as a heat map of measures against axes."""

from __future__ import annotations

import math

import pandas as pd

from sweep.analysis.expectations import is_noisy
from sweep.analysis.report.markup import Markup, data_table, join, tag
from sweep.analysis.study import Analysis
from sweep.analysis.wording import compact, interval, signed

_WIDTH, _HEIGHT, _MARGIN = 250, 22, 8


def forest(frame: pd.DataFrame, unit: str) -> Markup:
    """One row per measure: tau drawn with its interval, then the numbers.

    ``unit`` is what was resampled (:attr:`sweep.analysis.Analysis.unit`).
    """
    headings: list[str | Markup] = ["measure", _scale(), "τ", "95 % interval", "p (Holm)", "Ψ"]
    headings += ["95 % interval of Ψ", "models", f"{unit}s"]
    rows, keys = [], []
    for name, row in frame.iterrows():
        rows.append(
            (
                _name(str(name)),
                _mark(row["tau"], row["tau_low"], row["tau_high"]),
                signed(row["tau"]),
                interval(row["tau_low"], row["tau_high"]),
                _probability(row["p_holm"]),
                signed(row["psi"]),
                interval(row["psi_low"], row["psi_high"]),
                f"{row['n']:.0f}",
                f"{row['trainings']:.0f}",
            )
        )
        keys.append(
            [
                str(name),
                *map(_key, row[["tau", "tau", "tau_low", "p_holm", "psi", "psi_low"]]),
                *map(_key, row[["n", "trainings"]]),
            ]
        )
    return data_table(headings, rows, sort_keys=keys, filter_label="Filter measures")


def _name(measure: str) -> Markup:
    """A measure, marked where two seeds rank the same models differently."""
    if not is_noisy(measure):
        return tag("b", measure)
    note = "noisy: τ between two seeds of this measure is under 0.9, see docs/reliability.md"
    return join([tag("b", measure), tag("abbr", " ≈", title=note)])


def heat_map(frame: pd.DataFrame, analysis: Analysis) -> Markup:
    """psi of each measure along each axis; the number is printed, so colour only helps."""
    axes = list(analysis.axes)
    if "psi_method_with_standard" in frame.columns:
        axes.insert(axes.index("method") + 1, "method_with_standard")
    head = tag(
        "tr",
        tag("th", "measure", scope="col"),
        tag("th", "Ψ", scope="col"),
        *(tag("th", _breakable(axis), scope="col") for axis in axes),
    )
    body = [
        tag(
            "tr",
            tag("td", str(name), class_="name"),
            _heat_cell(row["psi"], interval(row["psi_low"], row["psi_high"])),
            *(_heat_cell(row[f"psi_{axis}"], _cell_note(row, axis)) for axis in axes),
        )
        for name, row in frame.iterrows()
    ]
    counts = tag(
        "tr",
        tag("td", "cells used (most)", class_="note"),
        tag("td"),
        *(tag("td", f"{frame[f'cells_{axis}'].max():,}", class_="note cell") for axis in axes),
    )
    parts = (tag("thead", head), tag("tbody", *body), tag("tfoot", counts))
    return tag("div", tag("table", *parts, class_="sortable heat"), class_="scroll")


def _cell_note(row: pd.Series[float], axis: str) -> str:
    reach = interval(row[f"psi_{axis}_low"], row[f"psi_{axis}_high"])
    used, tied = row[f"cells_{axis}"], row[f"tied_{axis}"]
    return (
        f"{reach}; {used:.0f} cells, {row[f'pairs_{axis}']:.0f} pairs used; {tied:.0f} cells tied"
    )


def _heat_cell(value: float, note: str) -> Markup:
    if math.isnan(value):
        return tag("td", "–", class_="cell none", title="no defined cell", data_key="")
    return tag(
        "td", signed(value), class_="cell", title=note, style=f"background:{heat_colour(value)}",
        data_key=f"{value:.6f}",
    )  # fmt: skip


def heat_colour(value: float) -> str:
    """White at 0, towards orange at +1 and blue at -1; light enough for dark text throughout."""
    end = (236, 146, 84) if value > 0 else (104, 164, 222)
    strength = min(abs(value), 1)
    return "#" + "".join(f"{round(255 + (c - 255) * strength):02x}" for c in end)


def _breakable(axis: str) -> Markup:
    """The axis's name, which may break after an underscore."""
    parts = axis.split("_")
    return join(
        part for k, p in enumerate(parts) for part in ((Markup("_<wbr>"), p) if k else (p,))
    )


def _key(value: float) -> float | str:
    return "" if math.isnan(value) else float(value)


def _probability(p: float) -> str:
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _position(value: float) -> float:
    return _MARGIN + (value + 1) / 2 * (_WIDTH - 2 * _MARGIN)


def _line(x1: float, x2: float, y1: float, y2: float, class_: str) -> Markup:
    return tag(
        "line", x1=f"{x1:.1f}", x2=f"{x2:.1f}", y1=f"{y1:.1f}", y2=f"{y2:.1f}", class_=class_
    )


def _scale() -> Markup:
    """The axis over the column of marks: -1 to 1."""
    ticks = [-1.0, -0.5, 0.0, 0.5, 1.0]
    return tag(
        "svg",
        *(
            tag("text", compact(t), x=f"{_position(t):.1f}", y=12, text_anchor="middle")
            for t in ticks
        ),
        *(_line(_position(t), _position(t), 15, 19, "axis") for t in ticks),
        width=_WIDTH, height=19, class_="forest", role="img", aria_label="scale from -1 to 1",
    )  # fmt: skip


def _mark(value: float, low: float, high: float) -> Markup:
    """A dot with its interval; filled where the interval excludes 0."""
    middle = _HEIGHT / 2
    shapes = [_line(_position(0), _position(0), 0, _HEIGHT, "zero")]
    if not math.isnan(value):
        clear = low > 0 or high < 0
        if not math.isnan(low):
            reach = "reach" if clear else "open-reach"
            shapes.append(_line(_position(low), _position(high), middle, middle, reach))
        shapes.append(
            tag(
                "circle",
                cx=f"{_position(value):.1f}",
                cy=middle,
                r=4,
                class_="dot" if clear else "open",
            )
        )
    label = f"tau {value:+.2f}, interval {low:+.2f} to {high:+.2f}"
    return tag(
        "svg", *shapes, width=_WIDTH, height=_HEIGHT, class_="forest", role="img", aria_label=label
    )
