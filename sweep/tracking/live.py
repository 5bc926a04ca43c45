"""What a task calls to be seen in W&B. Nothing here raises, and nothing waits for the network.

All W&B work happens in one recorder process per job (``handle``), started when the first epoch is
durable or the first model is finished. Online, the run of the model in training grows epoch by
epoch. Offline there is nobody to watch, so a run is written whole when its model is finished.
"""

from __future__ import annotations

import logging
import multiprocessing.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sweep.tracking.content import run_content
from sweep.tracking.handle import RecorderHandle, note_missing
from sweep.tracking.settings import TrackingSettings, redact, wandb_folder

log = logging.getLogger(__name__)


@dataclass
class LiveRun:
    """A context in which the run of the model in training is kept up to date.

    Left before ``finish``, the run is closed as one to be continued; a later attempt on the same
    training goes on with it, without a gap and without an epoch twice.
    """

    settings: TrackingSettings
    study_dir: Path
    study: str
    model_id: str
    training_id: str
    axes: Mapping[str, Any]
    config: Mapping[str, Any]
    history_path: Path
    checkpoints: Sequence[str] = ("last", "best")  # those of the training in this study
    _opened: bool = field(default=False, init=False)

    @cached_property
    def _live(self) -> bool:
        return self.settings.is_online()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opened:
            _send(self.settings, self.study_dir, {"op": "interrupt", "id": self.model_id})

    def log_epoch(self, record: Mapping[str, Any]) -> None:
        """Show one more epoch. ``record`` is a line of the history and durable already."""
        if not self._live:
            return
        if not self._opened:
            self._opened = True
            self._tell("open", row=None)
        message = {"op": "epoch", "id": self.model_id, "record": dict(record)}
        _send(self.settings, self.study_dir, message)

    def finish(self, row: Mapping[str, Any]) -> None:
        """Write the model's finished row to its run and close the run."""
        self._opened = False
        self._tell("close", row=row)

    def _tell(self, op: str, row: Mapping[str, Any] | None) -> None:
        content = run_content(
            study=self.study,
            model_id=self.model_id,
            training_id=self.training_id,
            axes=self.axes,
            config=self.config,
            checkpoints=self.checkpoints,
            row=row,
        )
        message = {"op": op, "run": content.to_plain(), "history": str(self.history_path)}
        _send(self.settings, self.study_dir, message)


def write_run(
    settings: TrackingSettings,
    study_dir: Path,
    study: str,
    row: Mapping[str, Any],
    history_path: Path,
    config: Mapping[str, Any],
    checkpoints: Sequence[str] = ("last", "best"),
) -> None:
    """Write or update the whole run of one finished model: its history and its row."""
    run = LiveRun(
        settings,
        study_dir,
        study,
        row["model_id"],
        row["training_id"],
        row["axes"],
        config,
        history_path,
        checkpoints,
    )
    run.finish(row)


def drain(timeout_s: float | None = None) -> None:
    """Wait until what was handed over is in W&B, at most ``tracking.finish_timeout_s``.

    Done anyway when the process ends; whoever wants to know earlier may call it, too.
    """
    handle = _ours()
    if handle is not None:
        handle.drain(timeout_s)


_handle: RecorderHandle | None = None


def _ours() -> RecorderHandle | None:
    """This process's recorder; one inherited through fork is our parent's, not ours."""
    return _handle if _handle is not None and _handle.owner == os.getpid() else None


def _send(settings: TrackingSettings, study_dir: Path, message: Mapping[str, Any]) -> None:
    global _handle
    if settings.mode == "none":
        return
    folder = wandb_folder(study_dir)
    try:
        handle = _ours()
        if handle is not None and (handle.folder, handle.settings) != (folder, settings):
            handle.close()  # a worker turned to another study
            handle = None
        if handle is None:
            handle = _handle = RecorderHandle(settings, folder, online=settings.is_online())
            # Runs in the main process as in one started by multiprocessing, which skips atexit.
            multiprocessing.util.Finalize(None, handle.close, exitpriority=100)
        handle.send(message)
    except Exception as error:  # noqa: BLE001 - tracking may fail in any way, and none may matter
        reason = redact(f"{type(error).__name__}: {error}")
        if message["op"] == "close":
            note_missing(folder, message["run"]["model_id"], reason)
        else:
            log.warning("W&B tracking failed: %s", reason)
