"""Processes by their ids: what they are doing, and what can be done to them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def resume(pid: int) -> None:
    """Let a stopped process go on, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def was_warned(pid: int) -> bool:
    """Whether SIGTERM waits for a stopped process: Slurm has warned the task that started it.

    Or whether it has left already: Slurm may wake what it warns.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return bool(int(fields["ShdPnd"], 16) >> (signal.SIGTERM - 1) & 1)


def kill(pid: int) -> None:
    """As the out-of-memory killer does; what has just left is left in peace."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def parent(pid: int) -> int:
    """Process id of a process's parent (a worker's is the task that Slurm started); 0: it left."""
    try:
        return int(_stat(pid)[1])
    except OSError:
        return 0


def state(pid: int) -> str:
    """What a process is doing, in one letter: R, S, D, T (stopped), Z (dead)."""
    return _stat(pid)[0]


def environment(pid: int) -> dict[str, str]:
    """The environment of a process; empty if it is gone."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    except (OSError, UnicodeDecodeError):
        return {}
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
