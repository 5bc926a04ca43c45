"""The user's jobs in Slurm's queue, and everybody's of sweeps: one query, cached, never a guess."""

from __future__ import annotations

import os
import re
import time
from dataclasses import asdict, dataclass
from getpass import getuser
from pathlib import Path

from sweep import files
from sweep.slurm import client

CACHE_S = 30.0
# %i: 12_3 for an element of an array. The comment comes last: it may contain anything.
_FORMAT = "%i|%T|%u|%a|%q|%P|%r|%k"
_SWEEP = re.compile(r"/.+:\d+\.\d+")  # comments as ``records.comment`` writes them


@dataclass(frozen=True)
class QueuedJob:
    """A job, or an element of an array, that is waiting or running."""

    job_id: str  # "12" or "12_3"
    state: str
    user: str
    account: str
    qos: str
    partition: str
    reason: str
    comment: str

    @property
    def waiting(self) -> bool:
        return self.state == "PENDING"

    @property
    def held(self) -> bool:
        """Whether Slurm keeps it back after a failed launch ("launch failed requeued held").

        A job that its user or an administrator holds is none of our business.
        """
        return self.waiting and "requeued held" in self.reason.lower()


@dataclass(frozen=True)
class Queue:
    """The queue, or the fact that it is not known. An unknown queue says nothing about jobs."""

    known: bool
    jobs: tuple[QueuedJob, ...] = ()
    problem: str | None = None
    age_s: float = 0.0

    @property
    def mine(self) -> list[QueuedJob]:
        """This user's jobs, of sweeps and of anything else."""
        me = getuser()
        return [job for job in self.jobs if job.user == me]

    def of(self, prefix: str) -> dict[str, QueuedJob]:
        """Jobs of any user whose comment begins with ``prefix``, by id."""
        return {job.job_id: job for job in self.jobs if job.comment.startswith(prefix)}


def query(*, max_age_s: float = CACHE_S, patience_s: tuple[float, ...] = (1.0, 3.0)) -> Queue:
    """The queue. An answer up to ``max_age_s`` old, of any process of this user, is good enough.

    It is asked for the jobs of all users, since a colleague's may belong to the same study. Where
    Slurm hides them (``PrivateData=jobs``), they are not in it.
    """
    cache = _cache_path()
    if max_age_s > 0 and (stored := _read_cache(cache, max_age_s)) is not None:
        return stored
    try:
        text = client.run(
            ["squeue", "--noheader", "--array", f"--format={_FORMAT}"], patience_s=patience_s
        )
        queue = Queue(known=True, jobs=parse(text))
    except client.SlurmError as error:
        return Queue(known=False, problem=str(error))
    try:
        content = {"time": time.time(), "jobs": [asdict(job) for job in queue.jobs]}
        files.write_json(cache, content)
    except OSError:
        pass  # without a cache the next one asks again
    return queue


def parse(text: str) -> tuple[QueuedJob, ...]:
    """Jobs from squeue's output in ``_FORMAT``: this user's, and any that a sweep submitted.

    Raises:
        client.SlurmError: a line is not in that format.
    """
    jobs, me = [], getuser()
    for number, line in enumerate(text.splitlines()):
        if number and not re.match(r"\d+\S*\|", line):
            continue  # the rest of somebody's comment of several lines
        fields = line.split("|", _FORMAT.count("|"))
        if len(fields) != _FORMAT.count("|") + 1:
            raise client.SlurmError(f"squeue printed a line that is not understood: {line!r}")
        job = QueuedJob(*fields)
        # parts of a heterogeneous job, say, have ids of another form; a sweep submits none
        if re.fullmatch(r"\d+(_\d+)?", job.job_id) and (
            job.user == me or _SWEEP.fullmatch(job.comment)
        ):
            jobs.append(job)
    return tuple(jobs)


def _cache_path() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cluster = os.environ.get("SLURM_CONF", "default").strip("/").replace("/", "-")
    return Path(base) / "robustness-sweep" / f"queue-{cluster}.json"


def _read_cache(path: Path, max_age_s: float) -> Queue | None:
    try:
        content = files.read_json(path)
        age = time.time() - content["time"]
        jobs = tuple(QueuedJob(**job) for job in content["jobs"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Queue(known=True, jobs=jobs, age_s=age) if 0 <= age < max_age_s else None
