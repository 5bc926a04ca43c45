"""Where a study stands, from its files alone. Reads only."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.table import Table

from sweep import manifest
from sweep.console import console
from sweep.plan import progress
from sweep.store import STATUSES, Store


def show_status(store: Store, study: str) -> None:
    """Print counts per status, in all and along each varied axis."""
    jobs = list(manifest.jobs(store, study).values())
    state = progress(jobs, store)
    present = [s for s in STATUSES if s in state.counts()]
    table = Table(title=f"{study}: {len(state.status)} models from {len(jobs)} trainings")
    table.add_column("")
    for status in present:
        table.add_column(status, justify="right")
    table.add_row("all", *(str(state.counts()[s]) for s in present))
    by_level: dict[tuple[str, Any], Counter[str]] = {}
    for job in jobs:
        for checkpoint in job.checkpoints:
            for axis, level in job.axes[checkpoint].items():
                counts = by_level.setdefault((axis, level), Counter())
                counts[state.status[job.model_id(checkpoint)]] += 1
    for (axis, level), counts in by_level.items():
        table.add_row(
            f"{axis}={'-' if level is None else level}", *(str(counts[s]) for s in present)
        )
    console.print(table)
