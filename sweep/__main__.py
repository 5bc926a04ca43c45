"""``python -m sweep``: look at studies and tend them. Nothing here changes a finished result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sweep.console import console, user_errors

app = typer.Typer(
    name="python -m sweep",
    help=__doc__,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[
    list[str], typer.Argument(help="as for launch.py, e.g. study=paper batch_size=64,128")
]
Study = Annotated[str, typer.Argument(help="name of a study")]
Results = Annotated[
    Path | None, typer.Option("--results-dir", help="default: results, next to launch.py")
]


def _store(results_dir: Path | None):  # type: ignore[no-untyped-def]
    from sweep import compose
    from sweep.store import Store

    return Store(compose.results_dir({"results_dir": str(results_dir) if results_dir else None}))


@app.command()
def plan(
    overrides: Overrides,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Compose and validate a study; say what it contains, what is done and what it will cost."""
    from sweep.plan import plan as make_plan
    from sweep.preview import preview

    with user_errors():
        summary = preview(make_plan(overrides))
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=1))
    else:
        summary.print(console)


@app.command()
def status(study: Study, results_dir: Results = None) -> None:
    """How many models are done, running, failed or missing, in all and along each axis."""
    from sweep.status import show_status

    with user_errors():
        show_status(_store(results_dir), study)


@app.command()
def collect(study: Study, results_dir: Results = None) -> None:
    """Write models.parquet: one row per model, from the files on disk."""
    from sweep.table import collect as collect_table

    with user_errors():
        store = _store(results_dir)
        table = collect_table(store, study)
    console.print(f"{len(table)} models, {table['status'].value_counts().to_dict()}")
    console.print(str(store.study(study) / "models.parquet"), markup=False)


@app.command()
def report(study: Study, results_dir: Results = None) -> None:
    """Correlate the study's measures with the robust generalization gap; write the report."""
    from sweep.result import show_result

    with user_errors():
        show_result(_store(results_dir), study)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
