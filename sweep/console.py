"""What a person sees in the terminal: errors in one line, progress, rows, failures."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from sweep.causes import same_cause
from sweep.setting import Job
from sweep.steps import Values
from sweep.store import Row, Store

console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)
USER_ERROR = 2
STOPPED = 130  # 128 + SIGINT, as shells have it


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn a user's mistake into one line on stderr and exit status 2, and Ctrl-C into one as well.

    ``ValueError`` is how the project says that something given to it is wrong. With
    ``HYDRA_FULL_ERROR=1`` the whole trace is shown, as Hydra does.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        text = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            text = f"{error.filename}: {error.strerror}"
        message = " ".join(text.split())
        errors.print("[red]error:[/red]", end=" ")
        errors.print(message, markup=False)
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        errors.print("stopped; the same command goes on from here")
        sys.exit(STOPPED)


@contextmanager
def follow(
    title: str, jobs: Mapping[int, Job], cost: Mapping[int, float]
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Progress of jobs, by number, weighted by their cost, fed with the workers' events."""
    share = dict.fromkeys(jobs, 0.0)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[finished]}/{task.fields[all]} trainings"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    printed = [time.monotonic()]
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        line = bar.add_task(title, total=sum(cost.values()), finished=0, all=len(jobs))

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "ready":
                return
            number = event["task"]
            if event["event"] == "epoch":
                # the last tenth is for evaluation and measures
                share[number] = 0.9 * event["epoch"] / jobs[number].spec.recipe.epochs
            else:
                share[number] = 1.0
            done = sum(cost[n] * share[n] for n in share)
            finished = sum(s == 1.0 for s in share.values())
            bar.update(line, completed=done, finished=finished)
            if not console.is_terminal and time.monotonic() - printed[0] > 15:
                printed[0] = time.monotonic()
                percent = 100 * done / sum(cost.values())
                console.print(f"  {percent:3.0f} %, {finished}/{len(jobs)} trainings")

        yield on_event


def epoch_line(record: Mapping[str, Any], epochs: int) -> str:
    """One epoch in words: loss terms, accuracies on held-out images, speed and the time left.

    The time left supposes that the other epochs take as long as this one.
    """
    terms = [f"{k.partition('/')[2]} {v:.4g}" for k, v in record.items() if k.startswith("loss/")]
    parts = [f"epoch {record['epoch']}/{epochs}", f"lr {record['lr']:.3g}"]
    parts.append(f"loss {record['loss']:.4g} ({', '.join(terms)})")
    parts.append(f"clean {record['clean_selection']:.1%}")
    if record["pgd_selection"] is not None:
        parts.append(f"PGD {record['pgd_selection']:.1%}")
    parts.append(f"{record['images_per_second']:.0f} images/s")
    left = timedelta(seconds=round(record["seconds"] * (epochs - record["epoch"])))
    return "  ".join([*parts, f"{left} left"])


@contextmanager
def follow_one(epochs: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A live line about one training; where the output is no terminal, a line for each epoch."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        line = bar.add_task("epoch 1", total=epochs)

        def on_epoch(record: Mapping[str, Any]) -> None:
            text = epoch_line(record, epochs)
            bar.update(line, description=text, completed=record["epoch"])
            if not console.is_terminal:
                console.print(text, markup=False)

        yield on_epoch


def show_failures(bad: Sequence[Mapping[str, Any]], jobs: Mapping[int, Job], store: Store) -> None:
    """All tasks that did not end well, grouped by cause, with the log of one of each group."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for end in bad:
        groups.setdefault((end["outcome"], same_cause(end["reason"] or "")), []).append(end)
    for (outcome, _), ends in groups.items():
        log = store.training(jobs[ends[0]["task"]].training_id) / "log.txt"
        errors.print(f"[red]{len(ends)} {outcome}[/red]:", end=" ")
        errors.print(f"{ends[0]['reason'] or 'no reason given'}; see {log}", markup=False)


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar fed with (done, total)."""
    with Progress(console=console, disable=not console.is_terminal) as bar:
        line = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)


def show_row(row: Row) -> None:
    """One model: its axes, accuracies and measures."""
    table = _facts(row["model_id"])
    table.add_row("status", row["status"], row["reason"] or "")
    for name, value in row["axes"].items():
        table.add_row(name, "-" if value is None else _text(value), "")
    _add_values(table, row["metrics"], row["measures"])
    for name in ("train_seconds", "evaluate_seconds"):
        if name in row["costs"]:
            table.add_row(name, f"{row['costs'][name]:.2f}", "")
    console.print(table)


def show_values(title: str, metrics: Values, measures: Values) -> None:
    """Accuracies and measures of a model that is not part of a study."""
    table = _facts(title)
    _add_values(table, metrics, measures)
    console.print(table)


def _facts(title: str) -> Table:
    table = Table(title=title, show_header=False, box=None, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    return table


def _add_values(table: Table, metrics: Values, measures: Values) -> None:
    for name, metric in metrics.items():
        table.add_row(name, _text(metric["value"]), metric.get("reason") or "")
    for name, result in measures.items():
        value, se = result["value"], result["se"]
        note = result["reason"] or (f"± {se:.2g}" if se is not None else "")
        table.add_row(f"measure/{name}", "undefined" if value is None else _text(value), note)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
