"""What a task calls to be seen in W&B. Nothing here raises, and nothing waits for the network.

All W&B work happens in one recorder process per job (see ``recorder``), started when the first
epoch is durable or the first model is finished. Online, the run of the model in training grows
epoch by epoch. Offline there is nobody to watch, so a run is written whole when its model is
finished. What could not be recorded is noted in ``wandb/missing/<model_id>.json``; ``sync``
compares the service with the rows, so it mends everything that is missing, noted or not.
"""

from __future__ import annotations

import json
import logging
import multiprocessing.util
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sweep import files
from sweep.tracking.content import run_content
from sweep.tracking.settings import TrackingSettings, client_environment, redact, wandb_folder

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parents[2]
SEND_TIMEOUT_S = 2.0  # the longest a task can be held up before the recorder is given up
EXIT_TIMEOUT_S = 1.0


class LiveRun:
    """A context in which the run of the model in training is kept up to date.

    Left by an exception, the run is closed as one to be continued; a later attempt on the same
    training goes on with it, without a gap and without an epoch twice.
    """

    def __init__(
        self,
        settings: TrackingSettings,
        study_dir: Path,
        study: str,
        model_id: str,
        training_id: str,
        axes: Mapping[str, Any],
        config: Mapping[str, Any],
        history_path: Path,
    ) -> None:
        self._settings = settings
        self._study_dir = study_dir
        self._study = study
        self._model_id = model_id
        self._training_id = training_id
        self._axes = dict(axes)
        self._config = dict(config)
        self._history_path = history_path
        self._live = settings.is_online()
        self._opened = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._opened:
            _send(self._settings, self._study_dir, {"op": "interrupt", "id": self._model_id})

    def log_epoch(self, record: Mapping[str, Any]) -> None:
        """Show one more epoch. ``record`` is a line of the history and durable already."""
        if not self._live:
            return
        if not self._opened:
            self._opened = True
            self._tell("open", row=None)
        message = {"op": "epoch", "id": self._model_id, "record": dict(record)}
        _send(self._settings, self._study_dir, message)

    def finish(self, row: Mapping[str, Any]) -> None:
        """Write the model's finished row to its run and close the run."""
        self._opened = False
        self._tell("close", row=row)

    def _tell(self, op: str, row: Mapping[str, Any] | None) -> None:
        content = run_content(
            study=self._study,
            model_id=self._model_id,
            training_id=self._training_id,
            axes=self._axes,
            config=self._config,
            row=row,
        )
        message = {"op": op, "run": content.to_plain(), "history": str(self._history_path)}
        _send(self._settings, self._study_dir, message)


def live_run(
    settings: TrackingSettings,
    study_dir: Path,
    study: str,
    model_id: str,
    training_id: str,
    axes: Mapping[str, Any],
    config: Mapping[str, Any],
    history_path: Path,
) -> LiveRun:
    """The run of the model in training, as a context manager. See ``LiveRun``."""
    return LiveRun(settings, study_dir, study, model_id, training_id, axes, config, history_path)


def write_run(
    settings: TrackingSettings,
    study_dir: Path,
    study: str,
    row: Mapping[str, Any],
    history_path: Path,
    config: Mapping[str, Any],
) -> None:
    """Write or update the whole run of one finished model: its history and its row."""
    LiveRun(
        settings,
        study_dir,
        study,
        row["model_id"],
        row["training_id"],
        row["axes"],
        config,
        history_path,
    ).finish(row)


def drain(timeout_s: float | None = None) -> None:
    """Wait until what was handed over is in W&B, at most ``tracking.finish_timeout_s``.

    Called when the process ends; whoever wants to know earlier may call it, too.
    """
    recorder = _ours()
    if recorder is not None:
        recorder.drain(timeout_s)


class _RecorderHandle:
    """Our end of the pipes to a recorder process."""

    def __init__(self, settings: TrackingSettings, study_dir: Path) -> None:
        self.owner = os.getpid()
        self.settings = settings
        self.folder = wandb_folder(study_dir)
        self.pending: dict[str, float] = {}  # model id -> when its close was sent
        self._partial = b""
        self._dead: str | None = None
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(p for p in (str(PROJECT), os.environ.get("PYTHONPATH")) if p)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sweep.tracking.recorder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            env=client_environment(self.folder) | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the job
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        self.send(
            {
                "op": "start",
                "folder": str(self.folder),
                "settings": asdict(settings),
                "online": settings.is_online(),
            }
        )

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand a message over, or give the recorder up and note what is missing."""
        if message["op"] == "close":
            self.pending[message["run"]["model_id"]] = time.monotonic()
        if self._dead is None:
            try:
                self._write(json.dumps(message).encode() + b"\n")
                self._read_answers(0.0)
            except (OSError, TimeoutError) as error:
                self._give_up(f"the W&B recorder does not answer ({error})")
        else:
            self._give_up(self._dead)

    def drain(self, timeout_s: float | None = None) -> None:
        limit = self.settings.finish_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit
        while self.pending and self._dead is None:
            left = deadline - time.monotonic()
            if left <= 0:
                self._give_up(f"W&B did not take the run within {limit:g} s")
            elif not self._read_answers(left):
                self._give_up("the W&B recorder ended early")

    def close(self) -> None:
        """Wait for what was handed over, then end the process; for the end of the job."""
        if self.owner != os.getpid():
            return
        self.drain()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_TIMEOUT_S)
        self._kill()

    def _write(self, data: bytes) -> None:
        deadline = time.monotonic() + SEND_TIMEOUT_S
        while data:
            try:
                data = data[os.write(self._in, data) :]
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError("its pipe is full") from None
                select.select([], [self._in], [], left)

    def _read_answers(self, timeout_s: float) -> bool:
        """Take in what the recorder reports; False at the end of its output."""
        while select.select([self._out], [], [], timeout_s)[0]:
            data = os.read(self._out, 65536)
            if not data:
                return False
            timeout_s = 0.0
            *lines, self._partial = (self._partial + data).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                self.pending.pop(answer["id"], None)
                if answer["error"] is None:
                    (self.folder / "missing" / f"{answer['id']}.json").unlink(missing_ok=True)
                else:
                    note_missing(self.folder, answer["id"], answer["error"])
        return True

    def _give_up(self, reason: str) -> None:
        self._dead = reason
        self._kill()
        for model_id in self.pending:
            note_missing(self.folder, model_id, reason)
        self.pending.clear()

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def note_missing(folder: Path, model_id: str, reason: str) -> None:
    """Note why a model's run is not complete in W&B."""
    log.warning("W&B lacks %s: %s (python -m sweep sync mends it)", model_id, reason)
    note = {"model_id": model_id, "reason": redact(reason), "time": time.time()}
    with suppress(OSError):  # a full disk must not make it worse
        files.write_json(folder / "missing" / f"{model_id}.json", note)


_recorder: _RecorderHandle | None = None


def _ours() -> _RecorderHandle | None:
    """This process's recorder; one inherited through fork is our parent's, not ours."""
    return _recorder if _recorder is not None and _recorder.owner == os.getpid() else None


def _send(settings: TrackingSettings, study_dir: Path, message: Mapping[str, Any]) -> None:
    global _recorder
    if settings.mode == "none":
        return
    try:
        recorder = _ours()
        if recorder is not None and recorder.folder != wandb_folder(study_dir):
            recorder.close()
            recorder = None
        if recorder is None:
            recorder = _recorder = _RecorderHandle(settings, study_dir)
            # Runs in the main process as in one started by multiprocessing, which skips atexit.
            multiprocessing.util.Finalize(None, recorder.close, exitpriority=100)
        recorder.send(message)
    except Exception as error:  # noqa: BLE001 - tracking may fail in any way, and none may matter
        log.warning("W&B tracking failed: %s", redact(f"{type(error).__name__}: {error}"))
