"""The process that talks to W&B for a job: ``python -m sweep.tracking.recorder``.

Whatever happens to it (a hanging service, a full disk, a crash) cannot reach the training, which
only writes short lines into a pipe. The lines (JSON objects) and what they do:

    {"op": "start", "folder", "settings", "online", "at_once"}   first line
    {"op": "open", "run": RunContent, "history": path}   begin or continue a run, catch up
    {"op": "epoch", "id", "record"}                      one more epoch of an open run
    {"op": "close", "run": RunContent, "history": path}  bring it up to date, summary, finish
                    may have "epochs_there": what `sync` found in the service already
    {"op": "interrupt", "id"}                            finish an open run as to be continued

Close and interrupt are answered on stdout: {"id": ..., "error": null or a line of text}. At the
end of input it leaves; runs still open are then "crashed" in W&B, as is their job.
With ``at_once`` above 1, lines are worked on side by side: only for closes of different runs.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from sweep.tracking.content import RunContent, read_history
from sweep.tracking.handle import ANSWERED
from sweep.tracking.settings import TrackingSettings, redact


class Recorder:
    """The runs of one job, one after the other or several at once."""

    def __init__(self, settings: TrackingSettings, folder: Path, *, online: bool) -> None:
        from sweep.tracking.client import OpenRun  # takes a second: imported in here only

        self._open_run = OpenRun
        self._settings = settings
        self._folder = folder
        self._online = online
        self._runs: dict[str, OpenRun] = {}
        self._broken: dict[str, str] = {}  # model id -> why its run is not recorded any more
        if online and "SLURM_ARRAY_TASK_ID" in os.environ:
            time.sleep(random.uniform(0.0, settings.jitter_s))

    def handle(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Do what a line says; returns the answer if it has one. Never raises."""
        content = RunContent(**message["run"]) if "run" in message else None
        model_id: str = content.model_id if content else message["id"]
        try:
            if model_id not in self._broken:
                self._do(message, content, model_id)
        except Exception as error:  # noqa: BLE001 - W&B may fail in any way, and none may matter
            self._broken[model_id] = redact(f"{type(error).__name__}: {error}")[:500]
            self._runs.pop(model_id, None)
        if message["op"] not in ANSWERED:
            return None
        return {"id": model_id, "error": self._broken.pop(model_id, None)}

    def _do(self, message: dict[str, Any], content: RunContent | None, model_id: str) -> None:
        match message["op"]:
            case "open":
                assert content is not None
                self._open(content, Path(message["history"]))
            case "epoch" if model_id in self._runs:
                self._runs[model_id].log([message["record"]])
            case "close":
                assert content is not None
                if model_id not in self._runs:
                    self._open(content, Path(message["history"]), message.get("epochs_there"))
                run = self._runs.pop(model_id)
                run.finish(content.summary) if content.finished else run.interrupt()
            case "interrupt" if model_id in self._runs:
                self._runs.pop(model_id).interrupt()

    def _open(self, content: RunContent, history: Path, epochs_there: int | None = None) -> None:
        records = read_history(history)
        run = self._open_run(
            content, self._settings, self._folder, online=self._online, epochs_there=epochs_there
        )
        self._runs[content.model_id] = run
        run.log(records)


def main(lines: TextIO, answers: TextIO) -> None:
    """Serve until the input ends."""
    start = json.loads(lines.readline())
    recorder = Recorder(
        TrackingSettings(**start["settings"]), Path(start["folder"]), online=start["online"]
    )
    lock = threading.Lock()

    def work(line: str) -> None:
        answer = recorder.handle(json.loads(line))
        if answer is not None:
            with lock:
                print(json.dumps(answer), file=answers, flush=True)

    with ThreadPoolExecutor(start["at_once"]) as executor:
        for line in lines:
            executor.submit(work, line)


if __name__ == "__main__":
    # What stops the job must not stop us first: the job says when it is over.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a stray print of the client must not speak into the protocol
    main(sys.stdin, protocol)
    os._exit(0)  # the client's own exit handlers would wait for a service that may be gone
