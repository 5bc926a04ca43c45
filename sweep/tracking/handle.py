"""A job's end of the pipes to its recorder process: bounded in time, whatever the other end does.

What could not be recorded is noted in ``wandb/missing/<model_id>.json``. The notes explain;
``sync`` does not need them, because it compares the service with the rows.
"""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweep import files
from sweep.tracking.settings import TrackingSettings, client_environment, redact

log = logging.getLogger(__name__)

MAX_UNSENT_BYTES = 64_000_000  # a recorder so far behind is given up
EXIT_TIMEOUT_S = 1.0

ANSWERED = ("close", "interrupt")

Answer = Callable[[str, str | None], None]  # model id, error or None


class RecorderHandle:
    """Starts a recorder and speaks with it."""

    def __init__(
        self,
        settings: TrackingSettings,
        folder: Path,
        *,
        online: bool,
        at_once: int = 1,
        on_answer: Answer = lambda model_id, error: None,
    ) -> None:
        """``at_once``: so many runs are closed at the same time (``sync``)."""
        self.owner = os.getpid()
        self.settings = settings
        self.folder = folder
        self.pending: set[str] = set()  # model ids of messages that were not answered yet
        self._on_answer = on_answer
        self._unsent = bytearray()
        self._partial = b""
        self._dead: str | None = None
        self._scratch = folder / "tmp" / f"{socket.gethostname()}-{os.getpid()}-{id(self):x}"
        self._scratch.mkdir(parents=True, exist_ok=True)
        # The job may run from a snapshot of the code; its recorder has to be of the same code.
        path = os.pathsep.join(p for p in (str(files.PROJECT), os.environ.get("PYTHONPATH")) if p)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sweep.tracking.recorder"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=client_environment(folder, self._scratch) | {"PYTHONPATH": path},
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
                "folder": str(folder),
                "settings": asdict(settings),
                "online": online,
                "at_once": at_once,
            }
        )

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand a message over without waiting: what the pipe does not take now goes later."""
        if message["op"] in ANSWERED:
            self.pending.add(message["run"]["model_id"] if "run" in message else message["id"])
        if self._dead is not None:
            self._give_up(self._dead)
            return
        self._unsent += json.dumps(message).encode() + b"\n"
        self._exchange(0.0)
        if len(self._unsent) > MAX_UNSENT_BYTES:
            self._give_up("the W&B recorder does not keep up")

    def drain(self, timeout_s: float | None = None) -> None:
        """Wait for all answers, or give the recorder up after ``timeout_s``."""
        limit = self.settings.finish_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit
        while self.pending and self._dead is None:
            left = deadline - time.monotonic()
            if left <= 0:
                self._give_up(f"W&B did not take the run within {limit:g} s")
            else:
                self._exchange(left)

    def close(self) -> None:
        """Wait for what was handed over, then end the process."""
        if self.owner != os.getpid():
            return
        self.drain()
        if self._dead is None:
            self._exchange(0.0)
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_TIMEOUT_S)
        self.kill()

    def _exchange(self, timeout_s: float) -> None:
        """Write and read what goes without waiting, after waiting until something does."""
        writers = [self._in] if self._unsent else []
        try:
            readable, writable, _ = select.select([self._out], writers, [], timeout_s)
            if writable:
                del self._unsent[: os.write(self._in, self._unsent)]
            data = os.read(self._out, 65536) if readable else None
        except OSError as error:
            self._give_up(f"the W&B recorder does not answer ({error.strerror})")
            return
        if data == b"":
            self._give_up("the W&B recorder ended early")
        elif data:
            self._take_in(data)

    def _take_in(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            self.pending.discard(answer["id"])
            self._settle(answer["id"], answer["error"])

    def _settle(self, model_id: str, error: str | None) -> None:
        if error is None:
            (self.folder / "missing" / f"{model_id}.json").unlink(missing_ok=True)
        else:
            note_missing(self.folder, model_id, error)
        self._on_answer(model_id, error)

    def _give_up(self, reason: str) -> None:
        self._dead = reason
        self.kill()
        pending, self.pending = self.pending, set()
        for model_id in sorted(pending):
            self._settle(model_id, reason)

    def kill(self) -> None:
        """End the recorder at once. What it had not answered is not settled."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)


def note_missing(folder: Path, model_id: str, reason: str) -> None:
    """Note why a model's run is not complete in W&B."""
    log.warning("W&B lacks %s: %s (python -m sweep sync mends it)", model_id, reason)
    note = {"model_id": model_id, "reason": redact(reason), "time": time.time()}
    with suppress(OSError):  # a full disk must not make it worse
        files.write_json(folder / "missing" / f"{model_id}.json", note)
