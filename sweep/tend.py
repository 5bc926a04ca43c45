"""Tending a study by hand: cancel, retry, logs, and giving back disk space."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweep import manifest
from sweep.console import console
from sweep.pool import Event, Pool
from sweep.setting import Job
from sweep.slurm import client, queue, records
from sweep.store import Store

_CANCEL_AGAIN_S = (1.0, 3.0, 6.0)  # a job that is just being requeued survives a scancel
_ABANDONED_S = 24 * 3600.0  # temporary files so old belong to nobody


def cancel(store: Store, study: str, jobs: Mapping[int, Job]) -> tuple[list[str], int]:
    """Cancel the Slurm jobs of these lines: (jobs cancelled, lines that had to be left alone).

    A job that also runs lines which were not chosen is left alone.

    Raises:
        ValueError: Slurm does not answer.
    """
    folder = store.study(study).resolve()
    cancelled: dict[str, None] = {}
    for pause in _CANCEL_AGAIN_S:
        chosen, shared = _jobs_of(folder, jobs)
        if not chosen:
            break
        cancelled |= dict.fromkeys(chosen)
        for start in range(0, len(chosen), 500):  # a command line has an end
            command = ["scancel", *chosen[start : start + 500]]
            try:
                client.run(command, patience_s=client.PATIENCE_S[:4])
            except client.SlurmError as error:
                raise ValueError(f"Slurm did not cancel everything: {error}") from None
        time.sleep(pause)
    return list(cancelled), shared


def _jobs_of(folder: Path, jobs: Mapping[int, Job]) -> tuple[list[str], int]:
    """(queued jobs that run nothing but these lines, how many of the lines share one)."""
    there = queue.query(max_age_s=0, patience_s=client.PATIENCE_S[:4])
    if not there.known:
        raise ValueError(f"Slurm does not answer, nothing was cancelled: {there.problem}")
    chosen, shared = [], 0
    for job_id, lines in records.elements(folder, there):
        mine = [line for line in lines if line in jobs]
        if len(mine) < len(lines):
            shared += len(mine)
        else:
            chosen.append(job_id)
    return chosen, shared


def retry(store: Store, study: str, jobs: Mapping[int, Job]) -> int:
    """Run these lines again, finished or not, where the study ran before; the exit status."""
    if records.submissions(store.study(study)):
        from sweep.slurm.dispatch import submit_again

        return submit_again(store, study, jobs)
    counts: Counter[str] = Counter()

    def on_event(event: Event) -> None:
        if event["event"] == "end":
            counts[event["outcome"]] += 1
            console.print(
                f"{sum(counts.values())}/{len(jobs)} {jobs[event['task']].training_id} "
                f"{event['outcome']} {event.get('reason') or ''}",
                markup=False,
            )

    threads = max(job.runtime.torch_threads for job in jobs.values())
    processes = max(1, (os.cpu_count() or 1) // threads)
    path = store.study(study) / "manifest.jsonl"
    Pool(path, store.root, min(processes, len(jobs)), on_event, threads).run(list(jobs))
    return 0 if counts["done"] == len(jobs) else 1


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
    """submitit's files and code copies of submissions that have no job in the queue."""
    submissions = records.submissions(folder)
    if not submissions:
        return []
    there = queue.query()
    if not there.known:
        return []  # unknown is not dead
    active = {job.comment.rpartition(".")[0] for job in there.of(f"{folder}:").values()}
    found, needed = [], set()
    for submission in submissions:
        if records.comment(folder, submission.name, 0).rpartition(".")[0] in active:
            needed.add(submission.read().get("code"))
        else:
            files = submission.folder.glob("*.pkl")
            found += [Garbage(path, "submitit's file of a job that has ended") for path in files]
    needed.add(submissions[-1].read().get("code"))
    for code in (folder / "code").glob("*"):
        if str(code) not in needed:
            found.append(Garbage(code, "code of submissions that have ended"))
    return found
