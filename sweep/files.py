"""JSON files, written whole or not at all, and JSON-lines files that only grow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from defenses.files import write_atomically

PROJECT = Path(__file__).resolve().parent.parent  # the folder of launch.py


def write_json(path: Path, value: Any, *, before_commit: Callable[[], None] | None = None) -> None:
    """Write ``value`` as strict JSON (NaN is refused: undefined values are null)."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    write_atomically(path, text.encode(), before_commit=before_commit)


def read_json(path: Path) -> Any:
    """The parsed file, or None where there is none.

    Raises:
        ValueError: the file is not JSON; the message names it.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to have it made again") from None


def append_lines(path: Path, lines: list[str]) -> None:
    """Append whole lines with one write; a line cut short by an earlier crash is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab+") as file:
        if file.tell() > 0:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write("".join(line + "\n" for line in lines).encode())
        file.flush()
        os.fsync(file.fileno())


def to_line(value: Any) -> str:
    """``value`` as one line of a JSON-lines file."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
