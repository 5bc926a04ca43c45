"""A worker process: takes line numbers of a manifest on stdin, reports on stdout, one JSON each.

It keeps torch and the data set loaded between tasks. What a task prints goes to its training's
own log.txt. SIGTERM, SIGINT and SIGUSR2 stop the task at the next step boundary, saved.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from sweep import manifest, task
from sweep.console import epoch_line
from sweep.setting import Job
from sweep.store import Store

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class StopFlag:
    """Set by a signal, asked at step boundaries."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        return self.signal is not None

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, self._set)

    def listen_to_parent_death(self) -> None:
        """Have Linux send SIGTERM when the parent dies, killed with no chance to say so."""
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)

    def _set(self, number: int, frame: object) -> None:
        self.signal = number


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append everything this process prints, at any level, to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    target = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        sys.stdout.flush()
        sys.stderr.flush()
        for saved, descriptor in zip(kept, (1, 2), strict=True):
            os.dup2(saved, descriptor)
            os.close(saved)


def run_logged(job: Job, store: Store, stop: StopFlag, out: TextIO, number: int) -> task.Report:
    """Run one task with its own log; ``out`` gets an event for each epoch."""

    def on_epoch(record: dict[str, Any]) -> None:
        log.info(epoch_line(record, job.spec.recipe.epochs))
        event = {"event": "epoch", "task": number, "epoch": record["epoch"]}
        print(json.dumps(event), file=out, flush=True)

    with logged(store.training(job.training_id) / "log.txt"):
        return task.run(job, store, should_stop=stop, on_epoch=on_epoch)


def main(path: Path, root: Path) -> None:
    """Serve until stdin ends or a signal comes."""
    stop = StopFlag()
    stop.listen()
    stop.listen_to_parent_death()
    store = Store(root)
    protocol = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a stray print must not speak into the protocol
    print(json.dumps({"event": "ready"}), file=protocol, flush=True)
    for line in sys.stdin:
        number = int(line)
        started = time.perf_counter()
        report = run_logged(manifest.job(path, number), store, stop, protocol, number)
        event = {
            "event": "end",
            "task": number,
            "training_id": report.training_id,
            "outcome": report.outcome,
            "reason": report.reason,
            "seconds": round(time.perf_counter() - started, 3),
        }
        print(json.dumps(event), file=protocol, flush=True)
        if stop():
            break


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
