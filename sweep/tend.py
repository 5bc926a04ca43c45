"""Tending a study by hand: cancel, retry, logs, and giving back disk space."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from getpass import getuser
from pathlib import Path

from sweep import manifest
from sweep.setting import Job
from sweep.slurm import client, queue, records
from sweep.store import Store

_CANCEL_AGAIN_S = (1.0, 3.0, 6.0)  # a job that is just being requeued survives a scancel
_ABANDONED_S = 24 * 3600.0  # temporary files so old belong to nobody


@dataclass(frozen=True)
class Cancelled:
    """What ``cancel`` did: ``jobs`` that it cancelled, and what it left alone.

    ``shared``: lines in jobs that also run others. ``foreign``: jobs per user that submitted them.
    """

    jobs: tuple[str, ...]
    shared: int
    foreign: dict[str, int]


def cancel(store: Store, study: str, jobs: Mapping[int, Job]) -> Cancelled:
    """Cancel the user's Slurm jobs of these lines.

    A job that also runs lines which were not chosen is left alone, and so is a colleague's, which
    Slurm lets only the colleague cancel.

    Raises:
        ValueError: Slurm does not answer, or never got anything of this study.
    """
    folder = store.study(study).resolve()
    if not records.submissions(folder):
        raise ValueError(f"study {study} was never submitted to Slurm; Ctrl-C stops a local run")
    cancelled: dict[str, None] = {}
    for pause in _CANCEL_AGAIN_S:
        found = _jobs_of(folder, {job.training_id for job in jobs.values()})
        if not found.jobs:
            break
        cancelled |= dict.fromkeys(found.jobs)
        for start in range(0, len(found.jobs), 500):  # a command line has an end
            command = ["scancel", *found.jobs[start : start + 500]]
            try:
                client.run(command, patience_s=client.PATIENCE_S[:4])
            except client.SlurmError as error:
                raise ValueError(f"Slurm did not cancel everything: {error}") from None
        time.sleep(pause)
    return replace(found, jobs=tuple(cancelled))


def _jobs_of(study: Path, trainings: Collection[str]) -> Cancelled:
    """What is in the queue of these trainings now, and may be cancelled."""
    there = queue.query(max_age_s=0, patience_s=client.PATIENCE_S[:4])
    if not there.known:
        raise ValueError(f"Slurm does not answer, nothing was cancelled: {there.problem}")
    me, users = getuser(), {job.job_id: job.user for job in there.jobs}
    chosen, shared, foreign = [], 0, Counter[str]()
    for job_id, runs in records.trainings(study, there):
        wanted = [training_id for training_id in runs if training_id in trainings]
        if len(wanted) < len(runs):
            shared += len(wanted)
        elif users[job_id] != me:
            foreign[users[job_id]] += 1
        else:
            chosen.append(job_id)
    return Cancelled(tuple(chosen), shared, dict(foreign))


def retry(store: Store, study: str, jobs: Mapping[int, Job]) -> int:
    """Run these lines again, finished or not, where the study ran before; the exit status.

    Raises:
        ValueError: results cannot be written; also as ``submit_again``.
    """
    store.check_writable()
    if records.submissions(store.study(study)):
        from sweep.slurm.dispatch import submit_again

        return submit_again(store, study, jobs)
    from sweep.dispatch import run_here

    return run_here(store, study, jobs)


def logs(store: Store, study: str, jobs: Mapping[int, Job]) -> Iterator[tuple[str, Path]]:
    """(training id, path) of each log there is: the training's own, then its Slurm jobs'."""
    by_line: dict[int, list[Path]] = {}
    for submission in records.submissions(store.study(study)):
        for array in submission.read()["arrays"]:
            for index, lines in enumerate(array["elements"]):
                single = len(array["elements"]) == 1
                name = array["job_id"] if single else f"{array['job_id']}_{index}"
                for line in lines:
                    by_line.setdefault(line, []).append(submission.folder / f"{name}_0_log.out")
    for line, job in jobs.items():
        for path in [store.training(job.training_id) / "log.txt", *by_line.get(line, [])]:
            if path.exists():
                yield job.training_id, path


@dataclass(frozen=True)
class Garbage:
    """Something that nobody needs any more, and why."""

    path: Path
    why: str

    @property
    def size(self) -> int:
        """Bytes on disk."""
        if self.path.is_dir():
            return sum(p.stat().st_size for p in self.path.rglob("*") if p.is_file())
        return self.path.stat().st_size


def garbage(store: Store, study: str) -> list[Garbage]:
    """What ``gc`` would delete of a study: never a result, never what a queued job needs."""
    found = []
    for job in manifest.jobs(store, study).values():
        folder = store.training(job.training_id)
        if store.is_running(job.training_id):
            continue
        if store.read_state(job.training_id).get("status") == "done":
            checkpoints = folder.glob("checkpoint*.pt")
            found += [Garbage(path, "checkpoint of a finished training") for path in checkpoints]
        for place in (folder, *(store.model(job.model_id(c)) for c in job.checkpoints)):
            for path in place.glob(".*.tmp"):
                if time.time() - path.stat().st_mtime > _ABANDONED_S:
                    found.append(Garbage(path, "left by a process that was killed"))
    return found + _submission_garbage(store.study(study).resolve())


def remove(found: Iterable[Garbage]) -> None:
    """Delete it."""
    for item in found:
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)


def _submission_garbage(folder: Path) -> list[Garbage]:
    """submitit's files and code copies of submissions that have no job in the queue.

    A colleague's are left alone: Slurm may hide whether it still has their jobs.
    """
    submissions = records.submissions(folder)
    if not submissions:
        return []
    there = queue.query()
    if not there.known:
        return []  # unknown is not dead
    active = {job.comment.rpartition(".")[0] for job in there.of(f"{folder}:").values()}
    found, needed = [], set()
    for submission in submissions:
        label = records.comment(folder, submission.name, 0).rpartition(".")[0]
        if label in active or submission.folder.stat().st_uid != os.getuid():
            needed.add(submission.read().get("code"))
        else:
            files = submission.folder.glob("*.pkl")
            found += [Garbage(path, "submitit's file of a job that has ended") for path in files]
    needed.add(submissions[-1].read().get("code"))
    for code in (folder / "code").glob("*"):
        if str(code) not in needed:
            found.append(Garbage(code, "code of submissions that have ended"))
    return found
