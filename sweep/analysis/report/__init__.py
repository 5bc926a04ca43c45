"""The report of a study: one self-contained HTML file, no request to anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from plotly.offline import get_plotlyjs

from sweep.analysis.report import coefficients, facts, findings
from sweep.analysis.report.exports import write_tables
from sweep.analysis.report.figures import check_formats, write_figures
from sweep.analysis.report.markup import Markup, join, tag
from sweep.analysis.report.scatter import page_data, scatter
from sweep.analysis.report.summary import spoken, summary
from sweep.analysis.study import Analysis, strongest_first
from sweep.analysis.wording import count


def render(
    analysis: Analysis, directory: Path, *, formats: Sequence[str] = ("png", "svg", "pdf")
) -> Path:
    """Write the report of a finished analysis into ``directory``; return the path of its page.

    Besides ``index.html``: ``tables/*.csv`` and ``*.tex``, and ``figures/`` in each of
    ``formats`` (none: no figures).

    Raises:
        ValueError: a format is unknown.
    """
    check_formats(formats)
    directory.mkdir(parents=True, exist_ok=True)
    write_tables(analysis, directory / "tables")
    write_figures(analysis, directory / "figures", formats)
    page = directory / "index.html"
    page.write_text(_page(analysis), encoding="utf-8")
    return page


def _page(analysis: Analysis) -> str:
    sections = [
        ("summary", "In words", "", summary(analysis)),
        ("run", "What was run", "", facts.what_was_run(analysis)),
        (
            "coefficients",
            "Coefficients",
            f"Kendall's τ of each measure with the {spoken(analysis.target)}. A filled dot: the "
            f"95 % interval, a bootstrap over {analysis.unit}s, excludes 0. Ψ compares only models "
            "that differ in a single axis. ≈: noisy, two seeds of the measure disagree. Click a "
            "heading to sort.",
            _coefficients(analysis),
        ),
        (
            "axes",
            "Along each axis",
            "ψ: Kendall's τ inside each group of models that differ in this axis only, averaged. "
            "+1: whenever the axis raises the measure, the target rises. Hover for intervals and "
            "counts.",
            _axes(analysis),
        ),
        ("scatter", "Scatter plots", "", scatter(analysis)),
        (
            "claims",
            "Claims",
            "Decided by rules fixed in advance. Undecided: the interval holds both answers.",
            findings.claims(analysis),
        ),
        (
            "targets",
            "Other targets",
            "τ with its 95 % interval, over all models that count, without those trained without "
            "an adversary, and with those kept that were set apart as masking.",
            findings.targets(analysis),
        ),
        (
            "controls",
            "Controls",
            "Is it more than accuracy on the training set? Partial τ given it, and R² of least "
            "squares on held-out trainings. A measure says no more than the control if the "
            "interval of partial τ holds 0 or it adds less than 0.01 to R².",
            findings.controls(analysis),
        ),
        (
            "signs",
            "Sign errors",
            "How often a measure orders two models that differ in one axis the wrong way round: "
            "0 never, 0.5 like a coin. A measure that falls as the target rises is read with its "
            "sign turned (direction −). An environment is an axis with two levels.",
            findings.signs(analysis),
        ),
        ("seeds", "Seeds", "", findings.seeds(analysis)),
        ("models", "Models", "", facts.models(analysis)),
        ("failures", "Failures", "", facts.failures(analysis)),
        ("costs", "Costs", "", facts.costs(analysis)),
        ("provenance", "Provenance", "", facts.provenance(analysis)),
    ]
    trainings = count(analysis.table["training_id"].nunique(), "training")
    measures = count(len(analysis.main), "measure")
    byline = f"{count(len(analysis.table), 'model')} from {trainings}, {measures}"
    links = (tag("li", tag("a", title, href=f"#{key}")) for key, title, *_ in sections)
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        Markup('<link rel="icon" href="data:,">'),
        tag("title", f"{analysis.study} – robustness measures"),
        tag("style", _asset("page.css")),
    )
    body = tag(
        "body",
        tag(
            "header",
            tag("p", "Measures of robust generalization", class_="overline"),
            tag("h1", analysis.study),
            tag("p", byline, class_="byline"),
        ),
        tag("nav", tag("ul", *links)),
        tag(
            "main",
            tag("div", *(_section(*section) for section in sections[:2]), class_="lead"),
            *(_section(*section) for section in sections[2:]),
        ),
        tag("footer", "Definitions of every statistic: docs/statistics.md of the project."),
        page_data(analysis),
        tag("script", Markup(get_plotlyjs())),
        tag("script", _asset("page.js")),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def _coefficients(analysis: Analysis) -> Markup:
    parts: list[Markup] = []
    for subset, frame in analysis.results.items():
        if len(analysis.results) > 1:
            parts.append(tag("h3", subset[0].upper() + subset[1:]))
        parts.append(coefficients.forest(strongest_first(frame), analysis.unit))
    return join(parts)


def _axes(analysis: Analysis) -> Markup:
    if analysis.no_cells:
        return tag("p", f"There is no Ψ: {analysis.no_cells}.")
    return coefficients.heat_map(analysis.main, analysis)


def _section(key: str, title: str, note: str, content: Markup) -> Markup:
    return tag(
        "section",
        tag("h2", title),
        tag("p", note, class_="note") if note else None,
        content,
        id=key,
    )


def _asset(name: str) -> Markup:
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))
