"""The report of a study: one self-contained HTML file, no request to anywhere."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pandas as pd
from plotly.offline import get_plotlyjs

from sweep.analysis.correlation import correlate
from sweep.analysis.report import coefficients, facts
from sweep.analysis.report.content import Content
from sweep.analysis.report.markup import Markup, join, tag
from sweep.analysis.report.scatter import page_data, scatter
from sweep.analysis.report.summary import spoken, summary
from sweep.analysis.table import standard_rows, usable
from sweep.analysis.wording import count


def write(
    table: pd.DataFrame,
    directory: Path,
    study_name: str,
    *,
    target: str = "gap",
    draws: int = 1000,
) -> Path:
    """Analyse ``table`` and write ``directory/index.html``; return its path.

    Raises:
        ValueError: the table cannot be analysed (no target, one axis only, all NaN, one model).
    """
    content = _analyse(table, study_name, target, draws)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "index.html"
    path.write_text(_page(content), encoding="utf-8")
    return path


def _analyse(table: pd.DataFrame, study_name: str, target: str, draws: int) -> Content:
    used = usable(table)
    if used.empty:
        raise ValueError(
            f"no usable model among {len(table)}: {_removed(used)}; nothing can be correlated"
        )
    results = {"all models": correlate(used, target=target, draws=draws)}
    robust = used[~standard_rows(used)]
    if 2 < len(robust) < len(used):
        results["without standard"] = correlate(robust, target=target, draws=draws)
    return Content(study_name, target, table, used, results)


def _removed(used: pd.DataFrame) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in used.attrs["removed"].items())


def _page(content: Content) -> str:
    sections = [
        ("summary", "In words", "", summary(content)),
        ("run", "What was run", "", facts.what_was_run(content)),
        (
            "coefficients",
            "Coefficients",
            f"Kendall's τ of each measure with the {spoken(content.target)}. A filled dot: the "
            "95 % interval, a bootstrap over trainings, excludes 0. Ψ compares only models that "
            "differ in a single axis. Click a heading to sort.",
            _coefficients(content),
        ),
        (
            "axes",
            "Along each axis",
            "ψ: Kendall's τ inside each group of models that differ in this axis only, averaged. "
            "+1: whenever the axis raises the measure, the target rises. Hover for intervals and "
            "counts.",
            coefficients.heat_map(content.main, content),
        ),
        ("scatter", "Measures against the target", "", scatter(content)),
        ("models", "Models", "", facts.models(content)),
        ("failures", "Failures", "", facts.failures(content)),
        ("costs", "Costs", "", facts.costs(content)),
        ("provenance", "Provenance", "", facts.provenance(content)),
    ]
    trainings = count(content.table["training_id"].nunique(), "training")
    measures = count(len(content.main), "measure")
    byline = f"{count(len(content.table), 'model')} from {trainings}, {measures}"
    links = (tag("li", tag("a", title, href=f"#{key}")) for key, title, *_ in sections)
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        Markup('<link rel="icon" href="data:,">'),
        tag("title", f"{content.study} – robustness measures"),
        tag("style", _asset("page.css")),
    )
    body = tag(
        "body",
        tag(
            "header",
            tag("p", "Measures of robust generalization", class_="overline"),
            tag("h1", content.study),
            tag("p", byline, class_="byline"),
        ),
        tag("nav", tag("ul", *links)),
        tag("main", *(_section(*section) for section in sections)),
        tag("footer", "Definitions of every statistic: docs/statistics.md of the project."),
        page_data(content),
        tag("script", Markup(get_plotlyjs())),
        tag("script", _asset("page.js")),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def _coefficients(content: Content) -> Markup:
    parts: list[Markup] = []
    for subset, frame in content.results.items():
        if len(content.results) > 1:
            parts.append(tag("h3", subset[0].upper() + subset[1:]))
        ranked = frame.sort_values("tau", key=abs, ascending=False, na_position="last")
        parts.append(coefficients.forest(ranked))
    return join(parts)


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
