"""Files that are either there whole or not there: written aside, synced, then renamed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(
    path: Path, content: bytes, *, before_commit: Callable[[], None] | None = None
) -> None:
    """Replace ``path`` by ``content`` in one step; a crash leaves the old file or the new one.

    ``before_commit`` is called once the bytes are safe and before they become visible: it may
    raise to prevent that, and then nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if before_commit is not None:
            before_commit()
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in ``directory`` survive a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
