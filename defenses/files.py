"""Files that are either there whole or not there: written aside, synced, then renamed."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(
    path: Path, *, before_commit: Callable[[], None] | None = None
) -> Iterator[BinaryIO]:
    """A file to write to that replaces ``path`` in one step when the block ends without error.

    A crash leaves the old file or the new one. ``before_commit`` is called once the bytes are
    safe and before they become visible: it may raise to prevent that, and nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{os.uname().nodename}.{os.getpid()}.{threading.get_ident()}"
    aside = path.with_name(f".{path.name}.{writer}.tmp")  # nodes of a cluster share pids
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before_commit is not None:
            before_commit()
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(path.parent)


def write_atomically(
    path: Path, content: bytes, *, before_commit: Callable[[], None] | None = None
) -> None:
    """Replace ``path`` by ``content`` in one step, as ``atomic_file`` does."""
    with atomic_file(path, before_commit=before_commit) as file:
        file.write(content)


def sync_directory(directory: Path) -> None:
    """Make renames in ``directory`` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
