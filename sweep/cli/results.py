"""Commands about results: the verdict, the comparison of studies, and W&B."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from sweep.cli.options import Results, Study, open_store, tracking_of
from sweep.console import console, errors, user_errors

app = typer.Typer()


@app.command()
def report(
    study: Study,
    target: Annotated[
        str, typer.Option(help="gap, pgd_test, clean_gap, or aa_gap where present")
    ] = "gap",
    claims: Annotated[Path | None, typer.Option(help="YAML file of your own claims")] = None,
    with_study: Annotated[
        str | None, typer.Option("--with", help="another study, to see whether rankings carry over")
    ] = None,
    results_dir: Results = None,
) -> None:
    """Correlate the study's measures with the target; write the report, tables and figures."""
    from sweep import analysis
    from sweep.result import show_result
    from sweep.table import collect, show_warnings

    with user_errors():
        store = open_store(results_dir)
        own = analysis.read_claims(claims) if claims else []
        comparison = None
        if with_study:
            other = collect(store, with_study)
            show_warnings(other)
            comparison = analysis.compare(
                collect(store, study),
                other,
                names=(study, with_study),
                target=target,
            )
        if show_result(store, study, target=target, claims=own, comparison=comparison) is None:
            raise typer.Exit(1)


@app.command()
def compare(
    study_a: Study,
    study_b: Study,
    target: Annotated[str, typer.Option(help="what the measures are held against")] = "gap",
    results_dir: Results = None,
) -> None:
    """Does the ranking of measures carry over from one study to another?"""
    from sweep import analysis
    from sweep.table import collect, show_warnings

    with user_errors():
        store = open_store(results_dir)
        tables = collect(store, study_a), collect(store, study_b)
        for table in tables:
            show_warnings(table)
        result = analysis.compare(*tables, names=(study_a, study_b), target=target)
    console.print(result.frame.round(3).to_string(), markup=False)
    console.print(result.sentence, markup=False)


@app.command()
def sync(
    study: Study,
    only: Annotated[
        str | None, typer.Option(help="'finished': leave interrupted trainings out")
    ] = None,
    at_once: Annotated[int, typer.Option(help="runs sent at the same time")] = 8,
    results_dir: Results = None,
) -> None:
    """Make W&B show what the study's files say; what is there already is not sent again."""
    from sweep.console import counting
    from sweep.tracking.sync import sync as synchronise

    if only not in (None, "finished"):
        errors.print(f"error: --only {only} is not valid; choose: finished", markup=False)
        raise typer.Exit(2)
    with user_errors():
        store = open_store(results_dir)
        with counting("sync") as progress:
            done = synchronise(
                store,
                study,
                tracking_of(store, study),
                only_finished=only == "finished",
                at_once=at_once,
                progress=progress,
            )
    console.print(
        f"{len(done.updated)} sent, {len(done.complete)} there already, "
        f"{len(done.unfinished)} unfinished, {len(done.broken)} broken; {done.seconds:.1f} s"
    )
    for name, reason in {**done.broken, **done.damaged_folders}.items():
        errors.print(f"{name}: {reason}", markup=False)
    if not done.ok:
        raise typer.Exit(1)


@app.command()
def dashboard(
    study: Study,
    local: Annotated[bool, typer.Option("--local", help="open the project's own report")] = False,
    results_dir: Results = None,
) -> None:
    """Create or update the study's W&B views and publish its analysis there."""
    from sweep.table import collect

    with user_errors():
        store = open_store(results_dir)
        if local:
            page = store.study(study) / "report" / "index.html"
            if not page.exists():
                raise ValueError(f"there is no report yet; run: python -m sweep report {study}")
            console.print(str(page), markup=False)
            webbrowser.open(page.as_uri())
            return
        from sweep.tracking.analysis_run import publish_analysis
        from sweep.tracking.dashboard import dashboard as make_views

        settings = tracking_of(store, study)
        for view in make_views(store, study, settings, collect(store, study)):
            console.print(f"{view.title} ({view.runs} runs): {view.url}", markup=False)
        publish_analysis(store, study, settings)
