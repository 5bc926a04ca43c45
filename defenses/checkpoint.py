"""What a training needs to go on after any interruption, kept in its directory.

``checkpoint.pt`` holds the whole state, ``checkpoint.previous.pt`` the one before it; both are
plain tensors, numbers and strings. ``history.jsonl`` is written from the checkpoint's own record
of the epochs, so that the two never disagree.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from defenses.files import atomic_file, write_atomically

FORMAT = 1
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Keeper:
    """Reads and writes the files of one training.

    ``before_commit`` is called right before each file becomes visible and raises if another
    attempt has taken the training over.
    """

    directory: Path
    training_id: str
    before_commit: Callable[[], None]

    def save(self, state: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Make ``state`` the newest checkpoint; when this returns it survives a power cut."""
        content = {"format": FORMAT, "training_id": self.training_id, "history": history, **state}
        newest = self.directory / "checkpoint.pt"

        def commit() -> None:
            self.before_commit()
            if newest.exists():  # a crash right here leaves only the previous one: see `load`
                newest.replace(self.directory / "checkpoint.previous.pt")

        with atomic_file(newest, before_commit=commit) as file:
            torch.save(content, file)
        self.write_history(history)

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The newest readable checkpoint with its tensors on ``device``; None if there is none.

        ``ValueError`` if checkpoints exist and none can be read, or one is of another training.
        """
        paths = [self.directory / "checkpoint.pt", self.directory / "checkpoint.previous.pt"]
        present = [path for path in paths if path.exists()]
        for path in present:
            if not zipfile.is_zipfile(path):  # a zip's table of contents is written last
                log.warning("%s cannot be read: it is not complete", path)
                continue
            content: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            if content.get("training_id") != self.training_id or content["format"] != FORMAT:
                raise ValueError(f"{path} belongs to another training or version; move it away")
            return content
        if present:
            raise ValueError(
                f"no checkpoint in {self.directory} can be read; delete them to restart"
            )
        return None

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Replace ``history.jsonl``: one line for each epoch of ``history``, and no others."""
        lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in history)
        path = self.directory / "history.jsonl"
        write_atomically(path, lines.encode(), before_commit=self.before_commit)

    def write_weights(self, name: str, weights: dict[str, Tensor]) -> None:
        """Write ``<name>.safetensors`` (initial, best or last)."""
        content = save({key: value.detach().cpu().contiguous() for key, value in weights.items()})
        path = self.directory / f"{name}.safetensors"
        write_atomically(path, content, before_commit=self.before_commit)
