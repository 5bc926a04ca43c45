"""A study to Slurm: submit what is left of it and leave, or wait and watch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sweep import lease, manifest, task
from sweep.console import console
from sweep.convert import to_dataclass
from sweep.dispatch import announce, require_files
from sweep.plan import Plan, progress
from sweep.setting import Job
from sweep.slurm import arrays, client, foresee, limits, queue, records
from sweep.slurm.arrays import Array, Task
from sweep.slurm.freeze import freeze
from sweep.slurm.infrastructure import Strikes
from sweep.slurm.options import SlurmOptions
from sweep.slurm.submit import Target, check, submit
from sweep.store import FINAL, Store
from sweep.todo import select

_LOCK_WAIT_S = 120.0
_WATCH_S = 15.0


def run_slurm(plan: Plan, options: Mapping[str, Any]) -> int:
    """Submit what is neither finished nor queued; returns the exit status.

    Without ``wait`` 0 means that everything left is in the queue, 3 that the cluster accepted
    only a part of it. With ``wait``: 0 if all models are done in the end.

    Raises:
        ValueError: anything that would make the jobs fail or never start. Nothing has been
            submitted then.
    """
    client.require()
    slurm = to_dataclass(SlurmOptions, options, "hydra.launcher")
    require_files(plan)
    plan.store.check_writable()
    allowed = _limits(slurm, plan.jobs)
    study = plan.store.study(plan.study).resolve()
    with _alone(study):
        numbers = manifest.append(plan.store, plan.study, plan.jobs)
        state = progress(plan.jobs, plan.store)
        there, queued = _queued(study)
        selected = [i for i in select(plan, state) if plan.jobs[i].training_id not in queued]
        announce(plan, state, selected, len(queued))
        if queued:
            console.print(f"in the queue already: {len(queued)} tasks")
            _release_held(study, there)
        tasks = [foresee.task(plan.jobs[i], numbers[i], i in state.measure_only) for i in selected]
        if selected:
            task.prepare([plan.jobs[i] for i in selected], plan.store)
        proven = foresee.proven(plan.jobs, state)
        accepted = _submit(plan.store, study, slurm, allowed, tasks, there, proven)
    if slurm.wait:
        return _watch(plan, study)
    if queued or selected:
        console.print(_next_steps(plan.study), markup=False)
    return 0 if accepted else 3


def submit_again(store: Store, study_name: str, jobs: Mapping[int, Job]) -> int:
    """Submit lines of the manifest once more, with the options of the last submission.

    Raises:
        ValueError: some of them are in the queue or running, or Slurm would refuse them.
    """
    client.require()
    study = store.study(study_name).resolve()
    with _alone(study):
        there, queued = _queued(study)
        chosen = {job.training_id for job in jobs.values()}
        busy = [i for i in chosen if i in queued or store.is_running(i)]
        if busy:
            raise ValueError(f"{len(busy)} of {len(jobs)} trainings are queued or running already")
        record = records.submissions(study)[-1].read()
        slurm = to_dataclass(SlurmOptions, record["options"], "hydra.launcher")
        allowed = _limits(slurm, jobs.values())
        state = progress(jobs.values(), store)
        tasks = [
            foresee.task(job, line, i in state.measure_only)
            for i, (line, job) in enumerate(jobs.items())
        ]
        everything = manifest.jobs(store, study_name).values()
        proven = foresee.proven(everything, progress(everything, store))
        accepted = _submit(store, study, slurm, allowed, tasks, there, proven)
    return 0 if accepted else 3


def _queued(study: Path) -> tuple[queue.Queue, set[str]]:
    """The queue as it is now, and the trainings of the study that are in it."""
    there = queue.query(max_age_s=0, patience_s=client.PATIENCE_S)
    if not there.known:
        raise ValueError(f"Slurm does not answer, nothing was submitted: {there.problem}")
    return there, {i for _, ids in records.trainings(study, there) for i in ids}


def _submit(
    store: Store,
    study: Path,
    slurm: SlurmOptions,
    allowed: limits.Limits,
    tasks: Sequence[Task],
    there: queue.Queue,
    proven: frozenset[object],
) -> bool:
    """Submit the tasks; returns whether the cluster took all of them."""
    if not tasks:
        return True
    try:
        planned = arrays.plan_arrays(tasks, slurm, allowed, queued=there.mine, proven=proven)
    except arrays.NoRoom as full:
        console.print(str(full), markup=False)
        return False
    bad_nodes = tuple(Strikes(study).bad_nodes(slurm.exclude_after))
    target = Target(study, store.root.resolve(), freeze(study), bad_nodes)
    submission = records.new_submission(study)
    try:
        check(planned, slurm, target, submission.folder)
    except BaseException:  # Ctrl-C as well: nothing has been submitted, so there is no submission
        shutil.rmtree(submission.folder)
        raise
    ids = submit(planned, slurm, target, submission)
    queue.query(max_age_s=0)  # so that `status` does not show the queue of half a minute ago
    left = sum(len(a.lines) for a, job_id in zip(planned, ids, strict=True) if job_id is None)
    _say_submitted(planned, ids, bad_nodes)
    if left:
        console.print(f"{left} tasks were not accepted; the same command submits them later")
    return left == 0


def _limits(slurm: SlurmOptions, jobs: Iterable[Job]) -> limits.Limits:
    try:
        allowed = limits.read()
    except client.SlurmError as error:
        raise ValueError(f"Slurm does not answer, nothing was submitted: {error}") from None
    for warning in foresee.check_limits(slurm, jobs, allowed):
        console.print(f"[yellow]warning:[/yellow] {warning}")
    return allowed


@contextmanager
def _alone(study: Path) -> Iterator[None]:
    """One submission of a study at a time: a second one waits, and then finds less to do."""
    folder = study / "submissions"
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _LOCK_WAIT_S
    while (held := lease.acquire(folder)) is None:
        if time.monotonic() > deadline:
            raise ValueError(f"somebody else has been submitting this study for long: {folder}")
        time.sleep(0.5)
    with held:
        yield


def _release_held(study: Path, there: queue.Queue) -> None:
    """Let go what Slurm holds back because a launch failed: running the command again asks so."""
    mine = {job.job_id for job in there.mine}  # Slurm lets nobody release a colleague's
    ours = [job.job_id for job, _ in _jobs(study, there) if job.held and job.job_id in mine]
    if ours:
        client.run(["scontrol", "release", ",".join(ours)], patience_s=client.PATIENCE_S)
        console.print(f"released {len(ours)} jobs that Slurm held after a failed launch")


def _jobs(study: Path, there: queue.Queue) -> list[tuple[queue.QueuedJob, list[int]]]:
    by_id = {job.job_id: job for job in there.jobs}
    return [(by_id[job_id], lines) for job_id, lines in records.elements(study, there)]


def _say_submitted(
    planned: Sequence[Array], ids: Sequence[str | None], bad_nodes: Sequence[str]
) -> None:
    for array, job_id in zip(planned, ids, strict=True):
        word = f"job {job_id}" if job_id else "not accepted"
        console.print(f"  {word}; {array.describe()}", markup=False)
    if bad_nodes:
        console.print(f"  kept away from nodes that failed: {', '.join(bad_nodes)}")


def _next_steps(study: str) -> str:
    return (
        f"next:  python -m sweep status {study}      how far it is\n"
        f"       python -m sweep failures {study}    what went wrong, grouped\n"
        f"       python -m sweep cancel {study}      stop it; the same command goes on later"
    )


def _watch(plan: Plan, study: Path) -> int:
    """Print how far the study is until nothing of it is in the queue."""
    shown = ""
    while True:
        there = queue.query(max_age_s=0)
        mine = _jobs(study, there)
        counts = progress(plan.jobs, plan.store).counts()
        line = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        if there.known:
            waiting = sum(job.waiting for job, _ in mine)
            line += f"; jobs: {len(mine) - waiting} running, {waiting} waiting"
        else:
            line += f"; jobs: unknown ({there.problem})"
        if line != shown:
            console.print(f"{time.strftime('%H:%M:%S')} {line}", markup=False)
            shown = line
        if there.known and not mine:
            finished = sum(counts.get(status, 0) for status in FINAL)
            return 0 if finished == plan.models else 1
        time.sleep(_WATCH_S)
