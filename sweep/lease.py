"""Who works on a training: a lease with owner, heartbeat and attempt number, in plain files.

``attempts/<n>.json`` is created exclusively (a hard link, atomic on NFS as well), so one of two
that start at the same moment gets attempt n and the other learns that the training is running.
The highest number is the only valid attempt: an owner checks before each commit that nobody has
taken over since (fencing), so a worker that was believed dead and wakes up changes nothing.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from sweep import files

HEARTBEAT_S = 10.0
STALE_S = 120.0  # twelve missed heartbeats: long pauses of shared file systems are survived


class LeaseLost(Exception):
    """Another attempt has taken over this training; what this one has is not committed."""


@dataclass(frozen=True)
class Attempt:
    """One line of a training's history of attempts."""

    number: int
    owner: dict[str, Any]
    released: bool
    age_s: float  # since the last heartbeat, by the file system's clock

    @property
    def alive(self) -> bool:
        """False only if the owner has let go, is provably dead, or has been silent too long."""
        return not self.released and self.age_s < STALE_S and not _provably_dead(self.owner)


def owner() -> dict[str, Any]:
    """This process, as others need it to judge whether it lives."""
    return {
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "pid": os.getpid(),
        "process_start": _process_start(os.getpid()),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "slurm_restart": int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    }


def current(training_dir: Path) -> Attempt | None:
    """The latest attempt at a training, or None if there was none."""
    number = _latest(training_dir)
    if number == 0:
        return None
    path = _path(training_dir, number)
    try:
        age = _now(training_dir) - path.stat().st_mtime
    except FileNotFoundError:
        return None  # removed together with the training, meanwhile
    except OSError:  # a read-only results folder: judge by the local clock
        age = time.time() - path.stat().st_mtime
    try:
        content = files.read_json(path) or {}
    except ValueError:  # torn as the machine died: nobody is known to hold it, its age tells
        content = {}
    return Attempt(number, content.get("owner", {}), bool(content.get("released")), age)


class Lease:
    """A held lease; a context manager that keeps the heartbeat and lets go at the end."""

    def __init__(self, training_dir: Path, number: int) -> None:
        self.training_dir = training_dir
        self.number = number
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(OSError):  # a full disk: without a heartbeat the lease goes stale by itself
            files.write_json(
                _path(self.training_dir, self.number), {"owner": owner(), "released": True}
            )

    def check(self) -> None:
        """Raise ``LeaseLost`` if a later attempt exists. Called right before each commit."""
        if _path(self.training_dir, self.number + 1).exists():
            raise LeaseLost(
                f"attempt {self.number + 1} has taken over {self.training_dir.name}; "
                f"attempt {self.number} stops without changing anything"
            )

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                os.utime(_path(self.training_dir, self.number))
            except OSError:
                continue  # a full or absent file system shows itself where results are written


def acquire(training_dir: Path) -> Lease | None:
    """Take the lease, or None if somebody alive holds it (or was faster just now)."""
    directory = training_dir / "attempts"
    directory.mkdir(parents=True, exist_ok=True)
    latest = current(training_dir)
    if latest is not None and latest.alive:
        return None
    number = 1 if latest is None else latest.number + 1
    temporary = directory / f".{socket.gethostname()}.{os.getpid()}.{threading.get_ident()}.tmp"
    try:
        with temporary.open("w") as file:
            file.write(json.dumps({"owner": owner(), "released": False}))
            file.flush()
            os.fsync(file.fileno())  # a name must not outlive a crash of the machine without this
        os.link(temporary, _path(training_dir, number))
    except FileExistsError:
        return None
    finally:
        temporary.unlink(missing_ok=True)
    return Lease(training_dir, number)


def _path(training_dir: Path, number: int) -> Path:
    return training_dir / "attempts" / f"{number:06d}.json"


def _latest(training_dir: Path) -> int:
    try:
        names = os.listdir(training_dir / "attempts")
    except FileNotFoundError:
        return 0
    return max((int(n[:6]) for n in names if n.endswith(".json") and n[0] != "."), default=0)


def _now(training_dir: Path) -> float:
    """The file system's own time: clocks of a cluster's nodes differ."""
    probe = training_dir / "attempts" / f".{socket.gethostname()}.{os.getpid()}.now"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _provably_dead(who: dict[str, Any]) -> bool:
    mine = owner()
    same_job = who.get("slurm_job_id") == mine["slurm_job_id"] is not None
    if same_job and who.get("slurm_restart", 0) < mine["slurm_restart"]:
        return True  # requeued: Slurm starts it again only when its earlier self is gone
    if who.get("host") != socket.gethostname():
        return False  # another machine: only its silence tells
    if who.get("boot") != _boot_id():
        return True
    return _process_start(int(who.get("pid", -1))) != who.get("process_start")


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks, so that a reused pid is not mistaken for it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
