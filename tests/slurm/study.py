"""A small study of real trainings on digits, its files, and the processes that work on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep import manifest, tend
from sweep.setting import Job
from sweep.slurm import queue, records
from sweep.store import Store

PROJECT = Path(__file__).parents[2]
# A checkpoint after every step, so that whatever happens happens in the middle of something.
SMALL = (
    "architecture=wrn10_1",
    "steps=1",
    "batch_size=64",
    "training.epochs=4",
    "dataset.train_size=320",
    "evaluation.batch_size=500",
    "measures=[x_grad_norm]",
    "measuring.images=100",
    "tracking=none",
    "device=cpu",
    "checkpoint_minutes=0",
)
ON_SLURM = (
    "hydra/launcher=slurm",
    "hydra.launcher.cpus=1",
    "hydra.launcher.time_min=30",
    "hydra.launcher.signal_s=10",
    "hydra.launcher.canary_min=0",
    "hydra.launcher.retries=0",
)


@dataclass
class Study:
    """One study in a results folder."""

    root: Path
    name: str
    axes: tuple[str, ...]

    @property
    def store(self) -> Store:
        return Store(self.root)

    @property
    def folder(self) -> Path:
        return self.root.resolve() / "studies" / self.name

    def launch(
        self, *overrides: str, check: int | None = 0, environment: dict[str, str] | None = None
    ) -> str:
        """Give the command that runs the study; returns what it printed."""
        command = [sys.executable, "launch.py", "-m", *SMALL, *self.axes]
        command += [f"study.name={self.name}", f"results_dir={self.root}", *overrides]
        result = subprocess.run(
            command,
            cwd=PROJECT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        assert check is None or result.returncode == check, result.stdout
        return result.stdout

    def jobs(self) -> dict[int, Job]:
        return manifest.jobs(self.store, self.name)

    def slurm_job(self, line: int) -> str | None:
        """The Slurm job that is to run a line of the manifest, or None if there is none."""
        there = queue.query(max_age_s=0)
        found = {n: job_id for job_id, e in records.elements(self.folder, there) for n in e}
        return found.get(line)

    def training(self, line: int) -> Path:
        return self.store.training(self.jobs()[line].training_id)

    def attempts(self, line: int) -> list[dict[str, Any]]:
        """What each process that worked on a line wrote down of itself, in order."""
        folder = self.training(line) / "attempts"
        return [json.loads(path.read_text()) for path in sorted(folder.glob("0*.json"))]

    def log(self, line: int) -> str:
        """Everything that was logged about a line, by its training and by its jobs."""
        found = tend.logs(self.store, self.name, {line: self.jobs()[line]})
        return f"line {line}\n" + "\n".join(path.read_text() for _, path in found)

    def suspend_workers(self, lines: Sequence[int], *, seconds: float) -> dict[int, int]:
        """Stop the worker of each line as soon as it has saved something: process ids by line.

        What then happens to it happens in the middle of its work, on slow and fast machines.
        """
        folders = {line: self.training(line) for line in lines}
        workers: dict[int, int] = {}
        deadline = time.monotonic() + seconds
        while len(workers) < len(folders):
            assert time.monotonic() < deadline, f"only {sorted(workers)} have begun"
            time.sleep(0.005)
            for line in folders.keys() - workers.keys():
                pid = _worker(folders[line])
                if pid is not None:
                    os.kill(pid, signal.SIGSTOP)
                    workers[line] = pid
        return workers

    def rows(self) -> dict[str, dict[str, Any]]:
        """Every row by model id."""
        rows = {}
        for job in self.jobs().values():
            for checkpoint in job.checkpoints:
                row = self.store.read_row(job.model_id(checkpoint))
                if row is not None:
                    rows[row["model_id"]] = row
        return rows

    def digests(self) -> dict[str, str]:
        return {model: row["row_digest"] for model, row in self.rows().items()}


def _worker(training: Path) -> int | None:
    """Process id of the worker that trains and has saved something, or None."""
    attempts = sorted((training / "attempts").glob("0*.json"))
    if not attempts or not (training / "checkpoint.pt").exists():
        return None
    content = json.loads(attempts[-1].read_text())
    return None if content["released"] else int(content["owner"]["pid"])
