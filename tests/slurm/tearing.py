"""Stopping a process while a file that it writes is half there."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.slurm.processes import state

_IN_MODIFY = 0x2  # <sys/inotify.h>


def stop_while_writing(pid: int, path: Path, *, seconds: float = 60) -> Path:
    """Let a stopped process go on until it is replacing ``path``; stop it with a part written.

    Returns the temporary file, which holds between a fifth and four fifths of what ``path`` does.
    The kernel tells of each write; the process runs on our core, where we go first, so it is
    stopped before it comes to its next one. Where we may not go first, some files may be missed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert watch >= 0
    assert libc.inotify_add_watch(watch, os.fsencode(path.parent), _IN_MODIFY) >= 0
    deadline = time.monotonic() + seconds
    try:
        with _ahead_of(pid):
            while time.monotonic() < deadline:
                os.kill(pid, signal.SIGCONT)
                select.select([watch], [], [], 1)
                os.kill(pid, signal.SIGSTOP)
                _wait_until_stopped(pid)
                with suppress(BlockingIOError):
                    os.read(watch, 65536)
                for aside in path.parent.glob(f".{path.name}.*.tmp"):
                    if 0.2 < aside.stat().st_size / path.stat().st_size < 0.8:
                        return aside
    finally:
        os.close(watch)
    raise AssertionError(f"{path.name} was never caught half written")


@contextmanager
def _ahead_of(pid: int) -> Iterator[None]:
    """This process and the other one on one core, and this one first."""
    cores = os.sched_getaffinity(0)
    core = {min(cores)}
    os.sched_setaffinity(pid, core)
    os.sched_setaffinity(0, core)
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, cores)


def _wait_until_stopped(pid: int) -> None:
    """Sleep until the kernel has stopped all of its threads."""
    while state(pid) != "T":
        time.sleep(0.0005)
