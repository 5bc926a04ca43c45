"""Several workers side by side on one machine: for the local launcher and for packed Slurm jobs.

A worker that dies (killed, out of memory, segmentation fault) takes down only its own task,
which is tried once more in a new worker and then recorded as failed.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.files import PROJECT

Event = dict[str, Any]
RETRIES_AFTER_DEATH = 1


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    gpu: str | None
    task: int | None = None
    pending: bytes = b""
    started: float = field(default_factory=time.monotonic)

    def give(self, task: int) -> None:
        assert self.process.stdin is not None
        self.task = task
        with suppress(BrokenPipeError):  # it died just now: the end of its output pipe tells
            self.process.stdin.write(f"{task}\n".encode())
            self.process.stdin.flush()


@dataclass
class Pool:
    """Runs lines of one manifest in ``processes`` workers; ``on_event`` sees all they report.

    ``gpus``: each worker sees one of them, the one with the fewest workers; without any, all that
    this process sees.
    """

    path: Path
    root: Path
    processes: int
    on_event: Callable[[Event], None] = lambda event: None
    threads: int = 1
    gpus: Sequence[str] = ()
    _deaths: dict[int, int] = field(default_factory=dict)
    _stopping: bool = False

    def run(self, tasks: Sequence[int]) -> list[Event]:
        """Run the tasks, in order as workers come free; returns the `end` event of each.

        After Ctrl-C or SIGTERM the workers save and stop; what was not begun is left out.
        """
        waiting = deque(tasks)
        ends: list[Event] = []
        selector = selectors.DefaultSelector()
        workers: dict[int, _Worker] = {}
        stops = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # USR2: Slurm's time is nearly up
        handlers = {s: signal.signal(s, self._stop) for s in stops}
        try:
            for _ in range(min(self.processes, len(waiting))):
                self._start(workers, selector, waiting.popleft())
            while workers:
                for key, _ in selector.select(timeout=0.5):
                    worker = workers[key.fd]
                    data = os.read(key.fd, 65536)
                    worker.pending += data
                    *lines, worker.pending = worker.pending.split(b"\n")
                    for line in lines:
                        self._handle(json.loads(line), worker, ends)
                    if not data:
                        self._bury(workers, selector, key.fd, waiting, ends)
                    elif worker.task is None:
                        if waiting and not self._stopping:
                            worker.give(waiting.popleft())
                        else:
                            self._close(worker)
                if self._stopping:
                    for worker in workers.values():
                        if worker.process.poll() is None:
                            worker.process.send_signal(signal.SIGTERM)
        finally:
            for worker in workers.values():
                worker.process.kill()
            for number, handler in handlers.items():
                signal.signal(number, handler)
            selector.close()
        return ends

    @property
    def stopped(self) -> bool:
        """Whether a signal ended the run early."""
        return self._stopping

    def _stop(self, number: int, frame: object) -> None:
        self._stopping = True

    def _start(
        self, workers: dict[int, _Worker], selector: selectors.BaseSelector, task: int
    ) -> None:
        environment = os.environ | {
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
        }
        taken = [worker.gpu for worker in workers.values()]
        gpu = min(self.gpus, key=taken.count, default=None)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        process = subprocess.Popen(
            [sys.executable, "-m", "sweep.worker", str(self.path), str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the workers through us, once
        )
        assert process.stdout is not None
        worker = _Worker(process, gpu)
        workers[process.stdout.fileno()] = worker
        selector.register(process.stdout, selectors.EVENT_READ)
        worker.give(task)

    def _handle(self, event: Event, worker: _Worker, ends: list[Event]) -> None:
        if (
            event["event"] == "ready"
        ):  # it has imported torch: on a cluster's disk that can take long
            event["seconds"] = round(time.monotonic() - worker.started, 3)
        elif event["event"] == "end":
            worker.task = None
            ends.append(event)
        self.on_event(event)

    def _close(self, worker: _Worker) -> None:
        assert worker.process.stdin is not None
        worker.process.stdin.close()

    def _bury(
        self,
        workers: dict[int, _Worker],
        selector: selectors.BaseSelector,
        descriptor: int,
        waiting: deque[int],
        ends: list[Event],
    ) -> None:
        """A worker's pipe has ended: it left in peace, or it died with a task in hand."""
        worker = workers.pop(descriptor)
        selector.unregister(descriptor)
        assert worker.process.stdout is not None
        worker.process.stdout.close()
        code = worker.process.wait()
        if worker.task is not None and not self._stopping:
            deaths = self._deaths[worker.task] = self._deaths.get(worker.task, 0) + 1
            if deaths <= RETRIES_AFTER_DEATH:
                waiting.append(worker.task)
            else:
                reason = f"its process died twice ({_cause(code)})"
                event = {"event": "end", "task": worker.task, "outcome": "died", "reason": reason}
                self._handle(event, worker, ends)
        if waiting and not self._stopping:
            self._start(workers, selector, waiting.popleft())


def _cause(code: int) -> str:
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"
