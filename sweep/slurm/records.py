"""What was handed to Slurm: one folder per submission, so that a second one only tops up.

``submissions/<n>/record.json`` is written by the submitting process alone; ``failures/`` and
``halt.json`` by the jobs, a file each.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sweep import files
from sweep.causes import same_cause
from sweep.slurm.queue import Queue
from sweep.store import read_manifest

_GOES_ON = ("interrupted", "running")  # outcomes of a line that has not ended


class Submission:
    """One submission of a study. ``name``: its number, ``0001``."""

    def __init__(self, study: Path, name: str) -> None:
        self.study = study
        self.name = name
        self.folder = study / "submissions" / name

    def read(self) -> dict[str, Any]:
        """``record.json``: time, code, and the arrays with their job ids and elements."""
        return files.read_json(self.folder / "record.json") or {"arrays": []}

    def write(self, record: dict[str, Any]) -> None:
        """Replace ``record.json``: before each sbatch and after it."""
        files.write_json(self.folder / "record.json", record)

    def array_ids(self) -> list[str]:
        """Slurm's ids of the arrays that were accepted."""
        return [a["job_id"] for a in self.read()["arrays"] if a["job_id"]]

    def remember(self, job_id: str, ends: Mapping[int, Mapping[str, Any]]) -> None:
        """Keep how lines of a job ended (``outcome`` and ``reason``), should it be requeued."""
        kept = {n: {"outcome": end["outcome"], "reason": end["reason"]} for n, end in ends.items()}
        with suppress(OSError):  # a full disk: then the line is looked at once more
            files.write_json(self.folder / f"{job_id}-ended.json", kept)

    def ended(self, job_id: str) -> dict[int, dict[str, Any]]:
        """What ``remember`` kept of the job's earlier starts, by line."""
        kept = files.read_json(self.folder / f"{job_id}-ended.json") or {}
        return {int(line): end for line, end in kept.items() if end["outcome"] not in _GOES_ON}

    def add_failure(self, line: int, reason: str) -> None:
        """Remember that a line of the manifest failed in this submission."""
        files.write_json(self.folder / "failures" / f"{line}.json", {"reason": reason})

    def common_failure(self, at_least: int) -> str | None:
        """A reason that so many lines share, as ``failures`` groups them, or None."""
        reasons: dict[str, str] = {}
        count: Counter[str] = Counter()
        for path in (self.folder / "failures").glob("*.json"):
            reason = (files.read_json(path) or {}).get("reason", "")
            key = same_cause(reason)
            reasons[key] = reason
            count[key] += 1
        return next((reasons[k] for k, n in count.most_common(1) if n >= at_least), None)

    def halt(self, reason: str) -> None:
        """Let no further job of this submission begin its work."""
        files.write_json(self.folder / "halt.json", {"reason": reason, "time": time.time()})

    def halted(self) -> str | None:
        """Why the submission was halted, or None."""
        content = files.read_json(self.folder / "halt.json")
        return content["reason"] if content else None


def submissions(study: Path) -> list[Submission]:
    """All submissions of a study, the oldest first.

    A folder without a record is none: the process was killed before it asked Slurm for anything.
    """
    found = sorted((study / "submissions").glob("[0-9]*/record.json"))
    return [Submission(study, path.parent.name) for path in found]


def new_submission(study: Path) -> Submission:
    """The next one, with a folder of its own, created exclusively."""
    taken = (study / "submissions").glob("[0-9]*")  # with a record or without
    number = max((int(path.name) for path in taken), default=0) + 1
    submission = Submission(study, f"{number:04d}")
    submission.folder.mkdir(parents=True)
    return submission


def comment(study: Path, submission: str, position: int) -> str:
    """What squeue shows with each job: enough to know an array whose id was never written down.

    It happens when sbatch is cut off after Slurm has accepted the job.
    """
    return f"{study.resolve()}:{submission}.{position}"


def elements(study: Path, queue: Queue) -> Iterator[tuple[str, list[int]]]:
    """Every job of the study that is in the queue, with the manifest lines it runs."""
    by_comment = {}
    for submission in submissions(study):
        for position, array in enumerate(submission.read()["arrays"]):
            by_comment[comment(study, submission.name, position)] = array["elements"]
    for job in queue.of(f"{study.resolve()}:").values():
        lines = by_comment.get(job.comment)
        if lines is None:
            continue  # its record was deleted: the leases still keep two from doing the same
        _, _, index = job.job_id.partition("_")
        yield job.job_id, lines[int(index or 0)]


def trainings(study: Path, queue: Queue) -> list[tuple[str, list[str]]]:
    """Every job of the study that is in the queue, with the trainings it runs.

    A job may run a line that later ones have replaced: by its training it is known all the same.
    """
    queued = list(elements(study, queue))
    if not queued:
        return []
    by_line = [task["training_id"] for task in read_manifest(study / "manifest.jsonl")]
    return [(job_id, [by_line[line] for line in lines]) for job_id, lines in queued]
