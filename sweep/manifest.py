"""A study's manifest: its frozen tasks, one JSON line each, only ever appended to.

A task is written once with its whole configuration, so what is queued does not change when files
are edited. The same task is not written twice; a task of the same training with other measures,
say, is a new line, and the last line of a training counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sweep import files
from sweep.convert import to_plain
from sweep.setting import Job, digest
from sweep.store import Store, read_manifest


def append(store: Store, study: str, jobs: Sequence[Job]) -> list[int]:
    """Add what is not in the manifest yet; returns each job's line number, counted from 0."""
    path = store.study(study) / "manifest.jsonl"
    known: dict[str, int] = {}
    if path.exists():
        for number, line in enumerate(read_manifest(path)):
            known[digest(line)] = number
    new: list[str] = []
    numbers = []
    for job in jobs:
        plain = to_plain(job)
        key = digest(plain)
        if key not in known:
            known[key] = len(known)
            new.append(files.to_line(plain))
        numbers.append(known[key])
    if new:
        files.append_lines(path, new)
    return numbers


def jobs(store: Store, study: str) -> dict[int, Job]:
    """The tasks that count, by line number: of each training the last one."""
    latest: dict[str, tuple[int, dict[str, Any]]] = {}
    for number, line in enumerate(store.manifest(study)):
        latest[line["training_id"]] = (number, line)
    return {number: Job.from_plain(line) for number, line in latest.values()}


def job(path: Path, number: int) -> Job:
    """The task of one line. Raises ``ValueError`` if the manifest has no such line."""
    for i, line in enumerate(read_manifest(path)):
        if i == number:
            return Job.from_plain(line)
    raise ValueError(f"{path} has no line {number + 1}")


def iterate(path: Path, numbers: Sequence[int]) -> Iterator[Job]:
    """The tasks of several lines, in the order asked for."""
    wanted = set(numbers)
    found = {i: line for i, line in enumerate(read_manifest(path)) if i in wanted}
    for number in numbers:
        if number not in found:
            raise ValueError(f"{path} has no line {number + 1}")
        yield Job.from_plain(found[number])
