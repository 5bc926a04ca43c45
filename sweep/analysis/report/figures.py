"""Figures for print, by matplotlib: forest plot, heat map, scatter plots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweep.analysis.report.levels import groupings, ordered_levels
from sweep.analysis.report.summary import spoken
from sweep.analysis.study import Analysis
from sweep.analysis.table import MEASURE
from sweep.analysis.wording import signed
from sweep.axes import level_name

FORMATS = ("png", "svg", "pdf")
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#a6428f", "#8a6d00", "#3a9bd0", "#555555", "#7a1f1f")
_MARKERS = ("o", "s", "^", "D", "P", "X", "*", "p")
_SCATTERED = 12  # measures in the scatter figure
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "svg.hashsalt": "robustness",  # equal input gives equal files
}


def check_formats(formats: Sequence[str]) -> None:
    """Raise ``ValueError`` for a format that figures are not written in."""
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"figures are not written as {name!r}; choose: {', '.join(FORMATS)}")


def write_figures(analysis: Analysis, directory: Path, formats: Sequence[str]) -> list[Path]:
    """``forest``, ``heat_map`` (where there are psi) and ``scatter`` in each of ``formats``."""
    if not formats:
        return []
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    with mpl.rc_context(_STYLE):
        for name, draw in (("forest", forest), ("heat_map", heat_map), ("scatter", scatter)):
            if name == "heat_map" and analysis.no_cells:
                continue
            figure = draw(analysis)
            for suffix in formats:
                path = directory / f"{name}.{suffix}"
                undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(suffix)
                figure.savefig(path, dpi=200, metadata=undated)
                paths.append(path)
    return paths


def forest(analysis: Analysis) -> Figure:
    """tau with its interval, strongest on top; filled where the interval excludes 0."""
    frame = analysis.main[::-1]
    figure, axes = _figure(6.3, 0.9 + 0.17 * len(frame))
    for place, (_, row) in enumerate(frame.iterrows()):
        clear = row["tau_low"] > 0 or row["tau_high"] < 0
        colour = "#1b1f24" if clear else "#8b949e"
        axes.plot([row["tau_low"], row["tau_high"]], [place, place], color=colour, linewidth=1)
        axes.plot(
            row["tau"], place, "o", markersize=3.5, markeredgecolor="#1b1f24",
            markerfacecolor="#1b1f24" if clear else "white",
        )  # fmt: skip
    axes.axvline(0, color="#8b949e", linewidth=0.6, linestyle=":")
    axes.set_yticks(range(len(frame)), [str(name) for name in frame.index])
    axes.set_xlim(-1, 1)
    axes.set_ylim(-0.7, len(frame) - 0.3)
    axes.set_xlabel(f"Kendall's τ with the {spoken(analysis.target)}, 95 % interval")
    return figure


def heat_map(analysis: Analysis) -> Figure:
    """psi of each measure along each axis, with the numbers."""
    frame, names = analysis.main, analysis.axes
    values = frame[["psi", *(f"psi_{axis}" for axis in names)]].to_numpy(dtype=float)
    figure, axes = _figure(1.9 + 0.62 * values.shape[1], 1.1 + 0.17 * len(frame))
    axes.imshow(values, cmap="PuOr_r", vmin=-1.3, vmax=1.3, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        text = "–" if math.isnan(value) else signed(float(value))
        axes.text(column, row, text, ha="center", va="center", fontsize=6.5)
    axes.set_xticks(range(values.shape[1]), ["Ψ", *names], rotation=35, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(frame)), [str(name) for name in frame.index])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def scatter(analysis: Analysis) -> Figure:
    """The strongest measures against the target, ranks, by method (colour and marker)."""
    names = [str(name) for name in analysis.main.index[:_SCATTERED]]
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(1.75 * columns, 1.6 * rows + 0.5), layout="constrained")
    panels = np.atleast_1d(np.asarray(figure.subplots(rows, columns, squeeze=False))).ravel()
    groups = groupings(analysis)
    column = groups["method"] if "method" in groups else next(iter(groups.values()))
    level = column.map(level_name)
    target = analysis.used[analysis.target].astype(float).rank()
    for panel, name in zip(panels, names, strict=False):
        values = analysis.used[MEASURE + name].astype(float).rank()
        for k, chosen in enumerate(ordered_levels(column)):
            panel.scatter(
                values[level == chosen], target[level == chosen], s=5, alpha=0.7, linewidths=0,
                color=_COLOURS[k % len(_COLOURS)], marker=_MARKERS[k % len(_MARKERS)], label=chosen,
            )  # fmt: skip
        panel.set_title(f"{name}  {signed(analysis.main['tau'][name])}", fontsize=7)
        panel.set_xticks([])
        panel.set_yticks([])
    for panel in panels[len(names) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.supylabel(f"{spoken(analysis.target)} (rank)", fontsize=8)
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()
