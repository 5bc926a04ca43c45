"""What a submission would be, without one: the arrays that ``plan`` shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from sweep.convert import to_dataclass, to_plain
from sweep.estimate import relative_cost
from sweep.plan import Plan, Progress
from sweep.setting import Job, model_axes
from sweep.slurm import arrays, client, limits, queue, records
from sweep.slurm.arrays import Array, Task
from sweep.slurm.options import SlurmOptions
from sweep.todo import select

_ABSENT = "there is no Slurm on this machine"


@dataclass(frozen=True)
class Foreseen:
    """The arrays that would be submitted now. ``note``: what could not be asked, or is in the way.

    ``queued``: tasks that are in the queue already.
    """

    arrays: tuple[Array, ...]
    queued: int
    note: str | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        shown = [
            {
                **to_plain(array.resources),
                "jobs": len(array.elements),
                "tasks": len(array.lines),
                "tasks_per_job": max(len(e) for e in array.elements),
                "side_by_side": array.processes,
                "parallelism": array.parallelism,
                "after": array.after,
                "canary": array.canary,
            }
            for array in self.arrays
        ]
        return {"arrays": shown, "queued": self.queued, "note": self.note}

    def print(self, console: Console) -> None:
        """The same for people, a line for each array."""
        if self.note:
            console.print(f"Slurm: {self.note}", markup=False)
        if self.queued:
            console.print(f"in the queue already: {self.queued} tasks")
        if self.arrays:
            jobs = sum(len(array.elements) for array in self.arrays)
            console.print(f"to be submitted: {len(self.arrays)} arrays, {jobs} jobs")
        for array in self.arrays:
            console.print(f"  {array.describe()}", markup=False)


def foresee(plan: Plan, state: Progress, launcher: Mapping[str, Any]) -> Foreseen:
    """What ``launch.py -m`` with the same overrides would hand to Slurm. Asks, changes nothing.

    Raises:
        ValueError: an option, a partition or a time limit that would be refused.
    """
    slurm = to_dataclass(SlurmOptions, launcher, "hydra.launcher")
    notes, busy, there = [], set[str](), queue.Queue(known=True)
    try:
        client.require()
        allowed = limits.read()
        there = queue.query()
        if not there.known:
            notes.append(f"the queue is not known ({there.problem})")
        busy = _queued(plan, there)
    except (ValueError, client.SlurmError) as error:
        problem = _ABSENT if isinstance(error, ValueError) else f"Slurm does not answer ({error})"
        notes.append(f"{problem}; shown for arrays of {limits.MAX_ARRAY_SIZE}, its default")
        allowed = limits.Limits(limits.MAX_ARRAY_SIZE, None, {})
    notes += check_limits(slurm, plan.jobs, allowed)
    chosen = [i for i in select(plan, state) if plan.jobs[i].training_id not in busy]
    tasks = [task(plan.jobs[i], i, i in state.measure_only) for i in chosen]
    planned: list[Array] = []
    try:
        if tasks:
            known = proven(plan.jobs, state)
            planned = arrays.plan_arrays(tasks, slurm, allowed, queued=there.mine, proven=known)
    except arrays.NoRoom as full:
        notes.append(str(full))
    return Foreseen(tuple(planned), len(busy), "; ".join(notes) or None)


def check_limits(slurm: SlurmOptions, jobs: Iterable[Job], allowed: limits.Limits) -> list[str]:
    """What to warn of. Raises ``ValueError`` if some job could never start in its partition."""
    warnings: dict[str, None] = {}
    for job in jobs:
        asked = slurm.resources(model_axes(job.spec, job.checkpoints[0]))
        allowed.check(asked.partition, asked.time_min, "hydra.launcher.time_min")
        if warning := allowed.warning(asked.partition):
            warnings[warning] = None
    return list(warnings)


def task(job: Job, line: int, measures_only: bool) -> Task:
    """A line of the manifest as the arrays see it."""
    axes = model_axes(job.spec, job.checkpoints[0])
    return Task(line, axes, relative_cost(job, measures_only=measures_only), measures_only)


def proven(jobs: Iterable[Job], state: Progress) -> frozenset[object]:
    """Methods of which some model of the study is done."""
    return frozenset(
        job.spec.method
        for job in jobs
        if any(state.status[job.model_id(c)] == "done" for c in job.checkpoints)
    )


def _queued(plan: Plan, there: queue.Queue) -> set[str]:
    """Trainings of the study that are in the queue."""
    study = plan.store.study(plan.study).resolve()
    return {i for _, ids in records.trainings(study, there) for i in ids}
