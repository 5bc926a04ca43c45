"""Where a study stands: from its files, with Slurm's queue beside them. Reads only."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from sweep import manifest
from sweep.axes import AXES, level_name, level_order
from sweep.console import console
from sweep.plan import Progress, progress
from sweep.setting import Job
from sweep.slurm import freeze, queue, records
from sweep.slurm.queue import Queue
from sweep.store import FINAL, STATUSES, Store

_WINDOW_S = 6 * 3600.0  # throughput is that of the last hours


@dataclass(frozen=True)
class SlurmJobs:
    """A study's jobs in the queue. ``known=False``: Slurm did not answer; nothing is claimed."""

    known: bool
    problem: str | None = None
    age_s: float = 0.0
    running: int = 0
    waiting: int = 0
    reasons: tuple[tuple[str, int], ...] = ()  # why jobs wait, the most common first


@dataclass(frozen=True)
class StudyStatus:
    """Everything ``status`` says. ``slurm``: None if the study was never submitted to Slurm.

    ``models_per_hour`` and ``seconds_left``: None while nothing recent tells.
    """

    study: str
    trainings: int
    counts: dict[str, int]
    levels: dict[str, dict[str, int]]  # "method=at" -> status -> models
    models_per_hour: float | None
    seconds_left: float | None
    slurm: SlurmJobs | None
    halted: str | None
    drift: list[str]

    @property
    def models(self) -> int:
        return sum(self.counts.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        from sweep.convert import to_plain

        return {**to_plain(self), "models": self.models}


def study_status(store: Store, study: str) -> StudyStatus:
    """Read a study's files, and ask Slurm once if the study was submitted there.

    Raises:
        ValueError: no such study, or a damaged manifest.
    """
    jobs = list(manifest.jobs(store, study).values())
    state = progress(jobs, store)
    folder = store.study(study).resolve()
    submissions = records.submissions(folder)
    rate, left = _speed(store, state)
    return StudyStatus(
        study=study,
        trainings=len(jobs),
        counts={s: state.counts()[s] for s in STATUSES if s in state.counts()},
        levels=_levels(jobs, state),
        models_per_hour=rate,
        seconds_left=left,
        slurm=_slurm(folder) if submissions else None,
        halted=submissions[-1].halted() if submissions else None,
        drift=_drift(submissions),
    )


def _levels(jobs: list[Job], state: Progress) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, Counter[str]]] = {}
    for job in jobs:
        for checkpoint in job.checkpoints:
            status = state.status[job.model_id(checkpoint)]
            for axis, level in job.axes[checkpoint].items():
                levels = counts.setdefault(axis, {})
                levels.setdefault(level_name(level), Counter())[status] += 1
    return {
        f"{axis}={level}": dict(counts[axis][level])
        for axis in sorted(counts, key=lambda a: AXES.index(a) if a in AXES else len(AXES))
        for level in sorted(counts[axis], key=level_order)
    }


def _speed(store: Store, state: Progress) -> tuple[float | None, float | None]:
    """(models an hour, seconds left), by how many models have ended in the last hours."""
    now = time.time()
    rows = [store.model(m) / "row.json" for m, status in state.status.items() if status in FINAL]
    left = len(state.status) - len(rows)
    recent = [ended for row in rows if now - (ended := row.stat().st_mtime) < _WINDOW_S]
    if len(recent) < 2 or left == 0:
        return None, None
    per_second = len(recent) / (now - min(recent))
    return 3600 * per_second, left / per_second


def _slurm(folder: Path) -> SlurmJobs:
    there: Queue = queue.query()
    if not there.known:
        return SlurmJobs(known=False, problem=there.problem)
    by_id = {job.job_id: job for job in there.jobs}
    mine = [by_id[job_id] for job_id, _ in records.elements(folder, there)]
    waiting = [job for job in mine if job.waiting]
    return SlurmJobs(
        known=True,
        age_s=there.age_s,
        running=len(mine) - len(waiting),
        waiting=len(waiting),
        reasons=tuple(Counter(job.reason for job in waiting).most_common(3)),
    )


def _drift(submissions: list[records.Submission]) -> list[str]:
    """Files of the code that were edited since the last submission, whose jobs run a copy."""
    if not submissions:
        return []
    code = submissions[-1].read().get("code")
    return freeze.drift(Path(code)) if code and Path(code).exists() else []


def show_status(status: StudyStatus) -> None:
    """Print it: a table of counts, then speed and queue."""
    present = list(status.counts)
    table = Table(title=f"{status.study}: {status.models} models from {status.trainings} trainings")
    table.add_column("")
    for name in present:
        table.add_column(name, justify="right")
    table.add_row("all", *(str(status.counts[name]) for name in present))
    for level, counts in status.levels.items():
        table.add_row(level, *(str(counts.get(name, 0)) for name in present))
    console.print(table)
    if status.models_per_hour is not None and status.seconds_left is not None:
        end = time.strftime("%a %d %b %H:%M", time.localtime(time.time() + status.seconds_left))
        console.print(f"{status.models_per_hour:.1f} models an hour; at this speed done by {end}")
    if status.slurm is not None:
        console.print(_queue_line(status.slurm), markup=False)
    if status.halted:
        console.print(f"halted: {status.halted}; the same command submits again", markup=False)
    if status.drift:
        names = ", ".join(status.drift[:3]) + (", ..." if len(status.drift) > 3 else "")
        console.print(
            f"{len(status.drift)} files edited since the last submission, without effect on its "
            f"jobs: {names}",
            markup=False,
        )


def _queue_line(slurm: SlurmJobs) -> str:
    if not slurm.known:
        return f"Slurm jobs: unknown ({slurm.problem})"
    line = f"Slurm jobs: {slurm.running} running, {slurm.waiting} waiting"
    if slurm.reasons:
        line += " (" + ", ".join(f"{reason}: {n}" for reason, n in slurm.reasons) + ")"
    return line + (f", {slurm.age_s:.0f} s ago" if slurm.age_s >= 1 else "")
