"""A study's manifest: its frozen tasks, one JSON line each, only ever appended to.

A task is written once with its whole configuration, so what is queued does not change when files
are edited. The same task is not written twice; a task of the same training with other measures,
say, is a new line, and the last line of a training counts.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import measures
from defenses.files import write_atomically
from sweep import files
from sweep.convert import to_plain
from sweep.digest import digest
from sweep.setting import Job
from sweep.store import Store, read_manifest


def append(store: Store, study: str, jobs: Sequence[Job]) -> list[int]:
    """Have each job be the last line of its training; returns its line number, counted from 0."""
    folder = store.study(study)
    path = folder / "manifest.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "manifest.lock", "w") as lock:  # line numbers are given out one by one
        fcntl.flock(lock, fcntl.LOCK_EX)
        last: dict[str, tuple[int, str]] = {}  # training -> its last line's number and digest
        count = 0
        for line in read_manifest(path) if path.exists() else ():
            last[line["training_id"]] = (count, digest(line))
            count += 1
        new: list[str] = []
        numbers = []
        for job in jobs:
            plain = to_plain(_with_frozen_measures(job, folder / "measures"))
            number, key = last.get(job.training_id, (-1, ""))
            if key != digest(plain):
                number = count + len(new)
                new.append(files.to_line(plain))
                last[job.training_id] = (number, digest(plain))
            numbers.append(number)
        if new:
            files.append_lines(path, new)
    return numbers


def _with_frozen_measures(job: Job, folder: Path) -> Job:
    """The job with measures of the user's own files read from copies kept with the study.

    A copy lies under the digest of its content, so later edits do not reach tasks that wait.
    """
    names = []
    for name in job.measuring.names:
        file, function = measures.split_reference(name)
        if file is not None:
            content = file.read_bytes()
            copy = folder / hashlib.sha256(content).hexdigest()[:12] / file.name
            if not copy.exists():
                write_atomically(copy, content)
            name = measures.reference(copy, function)
        names.append(name)
    return replace(job, measuring=replace(job.measuring, names=tuple(names)))


def jobs(store: Store, study: str) -> dict[int, Job]:
    """The study's trainings, by the number of the last line of each.

    That line says what is wanted of the training's models; which models there are is what all
    its lines say together, so that running a part of a study again does not shrink it.
    """
    latest: dict[str, tuple[int, Job]] = {}
    for number, line in enumerate(store.manifest(study)):
        job = Job.from_plain(line)
        if job.training_id in latest:
            before = latest[job.training_id][1]
            checkpoints = sorted({*before.checkpoints, *job.checkpoints}, reverse=True)
            axes: dict[str, dict[str, Any]] = {
                c: {**before.axes.get(c, {}), **job.axes.get(c, {})} for c in checkpoints
            }
            job = replace(job, checkpoints=tuple(checkpoints), axes=axes)
        latest[job.training_id] = (number, job)
    return dict(latest.values())


def job(path: Path, number: int) -> Job:
    """The task of one line. Raises ``ValueError`` if the manifest has no such line."""
    for i, line in enumerate(read_manifest(path)):
        if i == number:
            return Job.from_plain(line)
    raise ValueError(f"{path} has no line {number + 1}")
