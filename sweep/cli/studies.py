"""Commands that plan and tend studies."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sweep.cli.options import (
    Conditions,
    Json,
    Overrides,
    Results,
    Study,
    Tail,
    open_store,
    tracking_of,
)
from sweep.console import console, errors, user_errors

app = typer.Typer()


@app.command()
def plan(
    overrides: Overrides,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Compose and validate a study; say what it contains, what is done and what it will cost."""
    from sweep import compose
    from sweep.plan import plan as make_plan
    from sweep.preview import preview

    with user_errors():
        summary = preview(make_plan(overrides), compose.launcher(overrides))
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=1))
    else:
        summary.print(console)


@app.command()
def prepare(overrides: Overrides) -> None:
    """Fetch a study's data and weights, where there is a network: jobs never download."""
    from sweep.prepare import prepare as fetch

    with user_errors():
        problems = fetch(overrides, lambda line: console.print(line, markup=False, soft_wrap=True))
    for problem in problems:
        errors.print(f"missing: {problem}", markup=False)
    if problems:
        raise typer.Exit(1)


@app.command()
def status(study: Study, as_json: Json = False, results_dir: Results = None) -> None:
    """How many models are done, running, failed or missing, along each axis, and in the queue."""
    from sweep.status import show_status, study_status

    with user_errors():
        current = study_status(open_store(results_dir), study)
    if as_json:
        typer.echo(json.dumps(current.as_dict(), indent=1))
    else:
        show_status(current)


@app.command()
def failures(study: Study, as_json: Json = False, results_dir: Results = None) -> None:
    """What went wrong: grouped by cause, with nodes, count and one trace of each."""
    from sweep.failures import group_failures, show_failures

    with user_errors():
        groups = group_failures(open_store(results_dir), study)
    if as_json:
        typer.echo(json.dumps([group.as_dict() for group in groups], indent=1))
    else:
        show_failures(groups)


@app.command()
def logs(
    study: Study, conditions: Conditions = None, tail: Tail = 20, results_dir: Results = None
) -> None:
    """The last lines of the logs of the chosen trainings, and of their Slurm jobs."""
    from sweep import choose, tend

    with user_errors():
        store = open_store(results_dir)
        chosen = choose.choose(store, study, conditions or [])
        found = list(tend.logs(store, study, chosen))
        if not found:
            console.print(f"no logs: no worker or job has begun any of {len(chosen)} trainings")
        for training, path in found:
            console.print(f"[bold]{training}[/bold]", end=" ")
            console.print(str(path), markup=False)
            for line in path.read_text(errors="replace").splitlines()[-tail:] if tail else ():
                console.print(f"  {line}", markup=False)


@app.command()
def cancel(study: Study, conditions: Conditions = None, results_dir: Results = None) -> None:
    """Cancel a study's Slurm jobs, or those of the chosen trainings. Nothing finished is lost."""
    from sweep import choose, tend

    with user_errors():
        store = open_store(results_dir)
        done = tend.cancel(store, study, choose.choose(store, study, conditions or []))
    console.print(f"{len(done.jobs)} jobs cancelled")
    if done.shared:
        console.print(f"{done.shared} trainings left alone: their jobs also run others")
    for user, count in done.foreign.items():
        console.print(f"{count} jobs left alone: only {user} can cancel them", markup=False)


@app.command()
def retry(study: Study, conditions: Conditions = None, results_dir: Results = None) -> None:
    """Run the chosen trainings again, frozen as they are (without a condition: what failed)."""
    from sweep import choose, tend

    with user_errors():
        store = open_store(results_dir)
        chosen = choose.choose(store, study, conditions or ["status=failed,oom"])
        if not chosen:
            console.print("nothing to retry")
            return
        console.print(f"retrying {len(chosen)} trainings")
        code = tend.retry(store, study, chosen)
    raise typer.Exit(code)


@app.command()
def gc(
    study: Study,
    delete: Annotated[bool, typer.Option("--delete", help="without it, only show")] = False,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="also offline folders of runs that W&B holds completely")
    ] = False,
    results_dir: Results = None,
) -> None:
    """Show, or delete, what a study no longer needs. Never a result."""
    from sweep.tend import garbage, remove

    with user_errors():
        found = garbage(open_store(results_dir), study)
        size = sum(item.size for item in found)
        for why in dict.fromkeys(item.why for item in found):
            console.print(f"{sum(item.why == why for item in found)} x {why}")
        if delete:
            remove(found)
    verb = "freed" if delete else "to be freed with --delete"
    console.print(f"{len(found)} things, {size / 1e6:.1f} MB {verb}")
    if wandb:
        from sweep.tracking.cleanup import remove_synced

        with user_errors():
            store = open_store(results_dir)
            synced = remove_synced(store, study, tracking_of(store, study), dry_run=not delete)
        console.print(
            f"{len(synced.removed)} offline W&B folders, {synced.freed_bytes / 1e6:.1f} MB {verb}; "
            f"{len(synced.kept)} models are not complete in W&B"
        )


@app.command()
def collect(study: Study, results_dir: Results = None) -> None:
    """Write models.parquet: one row per model, from the files on disk."""
    from sweep.table import collect as collect_table
    from sweep.table import show_warnings

    with user_errors():
        store = open_store(results_dir)
        table = collect_table(store, study)
        show_warnings(table)
    console.print(f"{len(table)} models, {table['status'].value_counts().to_dict()}")
    console.print(str(store.study(study) / "models.parquet"), markup=False)
