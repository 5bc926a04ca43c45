"""What the commands share: their arguments, and the results folder they look into."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sweep.store import Store
    from sweep.tracking import TrackingSettings

Overrides = Annotated[
    list[str], typer.Argument(help="as for launch.py, e.g. study=paper batch_size=64,128")
]
Study = Annotated[str, typer.Argument(help="name of a study")]
Results = Annotated[
    Path | None, typer.Option("--results-dir", help="default: results, next to launch.py")
]
Json = Annotated[bool, typer.Option("--json", help="for programs")]
Tail = Annotated[int, typer.Option("--tail", help="lines of each log; 0: only the paths")]
Conditions = Annotated[
    list[str] | None,
    typer.Argument(help="e.g. method=at,trades status=failed reason=text training=<id>"),
]


def open_store(results_dir: Path | None) -> Store:
    """The store in ``results_dir``, or in the project's own results folder."""
    from sweep import compose
    from sweep.store import Store as Opened

    return Opened(compose.results_dir({"results_dir": str(results_dir) if results_dir else None}))


def tracking_of(store: Store, study: str) -> TrackingSettings:
    """The tracking settings that the study was submitted with last."""
    from sweep import manifest

    jobs = manifest.jobs(store, study)
    return jobs[max(jobs)].tracking
