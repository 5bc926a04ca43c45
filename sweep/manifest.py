"""A study's manifest: its frozen tasks, one JSON line each, only ever appended to.

A task is written once with its whole configuration, so what is queued does not change when files
are edited. The same task is not written twice; a task of the same training with other measures,
say, is a new line, and the last line of a training counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import measures
from defenses.files import write_atomically
from sweep import files
from sweep.convert import to_plain
from sweep.digest import digest
from sweep.setting import Job
from sweep.store import Store, read_manifest, with_earlier_models

_COPIES = "measures"  # folder in the study's, of the user's own files


def append(store: Store, study: str, jobs: Sequence[Job]) -> list[int]:
    """Have each job be the last line of its training; returns its line number, counted from 0.

    The very last line then asks for what these jobs ask for: it decides what a table's columns are.
    """
    folder = store.study(study)
    path = folder / "manifest.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "manifest.lock", "w") as lock:  # line numbers are given out one by one
        fcntl.flock(lock, fcntl.LOCK_EX)
        last: dict[str, tuple[int, str]] = {}  # training -> its last line's number and digest
        count, before = 0, None
        for line in read_manifest(path) if path.exists() else ():
            before = _with_files(Job.from_plain(line), _relative)
            last[before.training_id] = (count, _digest(before))
            count += 1
        new: list[str] = []
        numbers = []
        for job in jobs:
            frozen = _with_frozen_measures(job, folder)
            wanted = _digest(frozen)
            number, known = last.get(job.training_id, (-1, ""))
            asked_anew = job is jobs[-1] and not new and not _ask_alike(before, frozen)
            if known != wanted or asked_anew:
                number = count + len(new)
                new.append(files.to_line(to_plain(frozen)))
                last[job.training_id] = (number, wanted)
            numbers.append(number)
        if new:
            files.append_lines(path, new)
    return numbers


def _with_frozen_measures(job: Job, study: Path) -> Job:
    """The job with measures of the user's own files read from copies kept with the study.

    A copy lies under the digest of its content, so later edits do not reach tasks that wait. It is
    named from the study's folder on: results may be moved, or be mounted elsewhere on a node.
    """

    def freeze(path: Path) -> Path:
        content = path.read_bytes()
        copy = Path(_COPIES) / hashlib.sha256(content).hexdigest()[:12] / path.name
        if not (study / copy).exists():
            write_atomically(study / copy, content)
        return copy

    return _with_files(job, freeze)


def _with_files(job: Job, change: Callable[[Path], Path]) -> Job:
    """The job with the file of each measure that is not built in replaced."""
    names = []
    for name in job.measuring.names:
        file, function = measures.split_reference(name)
        names.append(name if file is None else measures.reference(change(file), function))
    return replace(job, measuring=replace(job.measuring, names=tuple(names)))


def _relative(path: Path) -> Path:
    """A copy's path from the study's folder on; first versions wrote down the absolute one."""
    return Path(*path.parts[-3:]) if path.parts[-3:-2] == (_COPIES,) else path


def _digest(job: Job) -> str:
    """Of a task as its line says it: the same for a line of an earlier version, read as a ``Job``.

    Without ``images``, which tell the task's cost and nothing of what it does.
    """
    return digest({**to_plain(job), "images": None})


def _ask_alike(job: Job | None, other: Job) -> bool:
    """Whether two tasks ask for the same columns with the same parameters."""
    return job is None or (job.evaluation, job.measuring) == (other.evaluation, other.measuring)


def _from_line(line: Mapping[str, Any], study: Path) -> Job:
    """The task of a line, with its measures' files as paths that can be opened here."""

    def find(path: Path) -> Path:
        copy = study.absolute() / _relative(path)  # joined to an absolute path, it is that path
        return path if path.is_absolute() and path.exists() else copy

    return _with_files(Job.from_plain(line), find)


def lines(store: Store, study: str) -> Iterator[Job]:
    """The task of each line, in order, as ``job`` gives it.

    Raises ``ValueError`` as ``store.manifest`` does.
    """
    for line in with_earlier_models(store.manifest(study)):
        yield _from_line(line, store.study(study))


def jobs(store: Store, study: str) -> dict[int, Job]:
    """The study's trainings as in ``latest``. Raises ``ValueError`` as ``store.manifest`` does."""
    return latest(lines(store, study))


def latest(lines: Iterable[Job]) -> dict[int, Job]:
    """Of all ``lines`` of a manifest, the last one of each training, by its number."""
    return dict({job.training_id: (number, job) for number, job in enumerate(lines)}.values())


def job(path: Path, number: int) -> Job:
    """The task of one line, with the models that earlier lines of its training ask for.

    Raises ``ValueError`` if there is no such line.
    """
    upto = with_earlier_models(read_manifest(path))
    line = next(itertools.islice(upto, number, None), None)
    if line is None:
        raise ValueError(f"{path} has no line {number + 1}")
    return _from_line(line, path.parent)
