"""Sections about what the coefficients are worth: claims, targets, controls, signs, seeds."""

from __future__ import annotations

import math

import pandas as pd

from sweep.analysis.claims import Verdict, evidence
from sweep.analysis.report.markup import Markup, data_table, join, tag
from sweep.analysis.report.summary import spoken
from sweep.analysis.study import Analysis
from sweep.analysis.wording import compact, count, interval, listed, percent, signed

_PAIRS_SHOWN = 15
_CLASSES = {"holds": "holds", "does not hold": "fails", "undecided": "undecided"}


def claims(analysis: Analysis) -> Markup:
    """The article's findings, then the user's claims, each with its evidence."""
    parts = [tag("h3", "The article's findings"), _verdicts(analysis.verdicts)]
    if analysis.own_verdicts:
        parts += [tag("h3", "Claims of this study's own"), _verdicts(analysis.own_verdicts)]
    if analysis.comparison is not None:
        parts.append(tag("p", analysis.comparison.sentence))
    return join(parts)


def _verdicts(verdicts: list[Verdict]) -> Markup:
    rows = (
        (
            tag("span", verdict.statement, class_="statement"),
            tag("span", verdict.outcome, class_=f"verdict {_CLASSES[verdict.outcome]}"),
            evidence(verdict),
            tag("span", verdict.detail, class_="statement note"),
        )
        for verdict in verdicts
    )
    return data_table(["claim", "verdict", "evidence", "detail"], rows, class_="wrapping")


def targets(analysis: Analysis) -> Markup:
    """tau of each measure with the other targets, and over the masking rows."""
    columns: dict[str, pd.DataFrame] = {
        f"{spoken(analysis.target)}, {subset}": frame for subset, frame in analysis.results.items()
    }
    for (target, subset), frame in analysis.targets.items():
        columns[f"{spoken(target)}, {subset}"] = frame
    if analysis.masking is not None:
        columns[f"{spoken(analysis.target)}, rows with masking"] = analysis.masking
    headings = ["measure", *(f"{name} (n = {frame['n'].max()})" for name, frame in columns.items())]
    rows = (
        (tag("b", name), *(_tau(frame, name) for frame in columns.values()))
        for name in map(str, analysis.main.index)
    )
    return data_table(headings, rows, class_="headings")


def _tau(frame: pd.DataFrame, name: str) -> Markup:
    tau, low, high = (frame[column][name] for column in ("tau", "tau_low", "tau_high"))
    return join((signed(tau), tag("span", f" {interval(low, high)}", class_="note")))


def controls(analysis: Analysis) -> Markup:
    """Partial tau and R^2 given the accuracy on the training set; pairs; groups."""
    if analysis.controls is None:
        return tag("p", "The table lacks the accuracy on the training set.", class_="note")
    frame, control = analysis.controls.frame, analysis.controls.control
    ranked = frame.sort_values("partial", key=abs, ascending=False, na_position="last")
    rows = (
        (
            tag("b", str(name)) if name != control else tag("i", f"{control} (the control)"),
            signed(row["partial"]),
            interval(row["partial_low"], row["partial_high"]),
            signed(row["tau_control"]),
            signed(row["r2"]),
            signed(row["r2_with_control"]),
            signed(row["gain"]),
            _says(row) if name != control else "",
        )
        for name, row in ranked.iterrows()
    )
    headings = ["measure", "partial τ", "95 % interval", f"τ with {control}", "R²"]
    headings += [f"R² with {control}", "gain in R²", "says"]
    pairs = analysis.controls.pairs.head(_PAIRS_SHOWN)
    pair_rows = (
        (f"{pair.first} + {pair.second}", f"{pair.r2:.3f}", f"{pair.gain:+.3f}".replace("-", "−"))
        for pair in pairs.itertuples()
    )
    return join(
        (
            data_table(headings, rows, filter_label="Filter measures"),
            tag("h3", "Best pairs of predictors"),
            data_table(["pair", "R², cross-validated", "gain over the better one"], pair_rows),
            tag("h3", "Near-identical measures"),
            _groups(analysis),
        )
    )


def _says(row: pd.Series[float]) -> str:
    if math.isnan(row["tau"]):
        return "–"
    return "no more than the control" if row["explained"] else "adds"


def _groups(analysis: Analysis) -> Markup:
    if not analysis.identical:
        return tag("p", "No two measures agree at |τ| > 0.99 within every architecture.")
    return tag("ul", *(tag("li", listed(group)) for group in analysis.identical))


def signs(analysis: Analysis) -> Markup:
    """Distribution of the sign error over environments, worst first."""
    summary = analysis.signs.summary.sort_values("worst")
    rows = (
        (
            tag("b", str(name)),
            "+" if row["direction"] > 0 else "−",
            f"{row['environments']:.0f}",
            *(_share(row[column]) for column in ("mean", "median", "p90", "worst")),
            str(row["worst_environment"]) if row["environments"] else "–",
        )
        for name, row in summary.iterrows()
    )
    headings = [
        "measure",
        "direction",
        "environments",
        "mean",
        "median",
        "90th percentile",
        "worst",
        "where",
    ]
    weighted = (
        "Pairs are weighted by the probability that the sign of their difference is right, from "
        "the paired per-example correctness."
        if analysis.signs.unweighted_because is None
        else f"Pairs are not weighted: {analysis.signs.unweighted_because}."
    )
    return join((tag("p", weighted, class_="note"), data_table(headings, rows)))


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def seeds(analysis: Analysis) -> Markup:
    """The seed's standard deviation of the target and of every measure."""
    if analysis.seeds.empty:
        return tag(
            "p", "This study has one seed per setting: how far a seed alone moves the results is "
            "unknown. Add replicates (seed=0,1,2) to a few settings to find out."
        )  # fmt: skip
    rows = (
        (
            tag("b", str(name)),
            compact(row["sd"]),
            compact(row["spread"]),
            percent(row["ratio"]),
            percent(row["below"]),
            f"{row['settings']:.0f}",
            f"{row['models']:.0f}",
        )
        for name, row in analysis.seeds.iterrows()
    )
    headings = ["quantity", "sd between seeds", "sd over the grid", "ratio"]
    headings += ["pairs closer than the seed's sd", "settings", "models"]
    first = analysis.seeds.iloc[0]
    sentence = (
        f"The seed alone moves the {spoken(analysis.target)} with a standard deviation of "
        f"{compact(first['sd'])} ({count(int(first['settings']), 'setting')}); "
        f"{percent(first['below'])} of all pairs of models differ by less."
    )
    return join((tag("p", sentence), data_table(headings, rows, filter_label="Filter")))
