"""Where the rehearsal happens: a disk of its own, a one-machine Slurm, and a log of Slurm calls."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.slurm.cluster import PROJECT, Cluster

SLURM = {
    "SLURM_STATE": "/var/tmp/rehearsal-slurm",
    "SLURM_PORT": "7700",
    "SLURM_MAX_ARRAY_SIZE": "41",
    "SLURM_MAX_SUBMIT_JOBS": "100",
}
DISK_GB = 6
COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "sacct", "sacctmgr", "sinfo", "srun")


@dataclass
class Scene:
    """The study's results, the cluster it runs on, and what the rehearsal writes down."""

    results: Path
    cluster: Cluster
    environment: dict[str, str]  # of the study's own commands: their calls of Slurm are counted

    @property
    def study(self) -> Path:
        return self.results / "studies" / "rehearsal"

    @property
    def notes(self) -> Path:
        """Faults and calls; next to the study, so that an archive of the results has them."""
        return self.results / "rehearsal"

    def launch(self, *overrides: str) -> int:
        """The command a user would give; returns its exit status."""
        command = [sys.executable, "launch.py", "-m", "study=rehearsal", *overrides]
        command += [f"results_dir={self.results}", "device=cpu", "tracking=none"]
        print("$", " ".join(["python", *command[1:]]), flush=True)
        return subprocess.run(command, cwd=PROJECT, env=self.environment).returncode

    def sweep(self, *arguments: str) -> int:
        """``python -m sweep ...``"""
        command = [sys.executable, "-m", "sweep", *arguments, "--results-dir", str(self.results)]
        print("$", " ".join(["python", *command[1:]]), flush=True)
        return subprocess.run(command, cwd=PROJECT, env=self.environment).returncode

    def models(self) -> int:
        """How many models have a row."""
        return sum(1 for _ in self.results.glob("models/*/row.json"))

    def jobs(self, state: str | None = None) -> list[str]:
        """The study's jobs in the queue, all or those in a state. Empty while Slurm is silent."""
        found = self.cluster.run(
            "squeue", "--noheader", "--array", "--format=%i %T %j", check=False
        )
        rows = [line.split() for line in found.splitlines()]
        return [i for i, s, name in rows if name == "rehearsal" and state in (None, s)]

    def calls(self) -> Counter[str]:
        """Slurm commands that the study's processes have run so far."""
        log = self.notes / "slurm_calls.log"
        return Counter(line.split()[1] for line in log.read_text().splitlines() if line)


def scene(results: Path) -> Scene:
    """Everything in place: the disk mounted, Slurm up, its commands wrapped to be counted."""
    _mount(results)
    path = f"{os.environ['PATH']}:/usr/sbin"
    cluster_environment = {**os.environ, **SLURM, "PATH": path}
    state = Path(SLURM["SLURM_STATE"])
    cluster = Cluster(state, cluster_environment)
    cluster.start()
    notes = results / "rehearsal"
    notes.mkdir(exist_ok=True)
    environment = cluster_environment | {
        "SLURM_CONF": str(state / "slurm.conf"),
        "XDG_CACHE_HOME": str(notes / "cache"),
        "PATH": f"{_wrappers(notes)}:{path}",
        "OMP_NUM_THREADS": "1",
    }
    return Scene(results, cluster, environment)


def _mount(results: Path) -> None:
    """A file system of its own in an image file, so that a full disk is nobody else's problem."""
    results.mkdir(parents=True, exist_ok=True)
    if os.path.ismount(results):
        return
    image = results.with_suffix(".img")
    new = not image.exists()
    if new:
        with image.open("wb") as file:
            file.truncate(DISK_GB * 10**9)
        subprocess.run(["mkfs.ext4", "-q", "-i", "8192", str(image)], check=True)
    done = subprocess.run(["mount", "-o", "loop", str(image), str(results)], capture_output=True)
    if done.returncode:
        if not new:  # it holds what was computed before
            sys.exit(f"{image} cannot be mounted: {done.stderr.decode().strip()}")
        image.unlink()
        print(f"no disk of its own ({done.stderr.decode().strip()}): it will not fill")


def _wrappers(notes: Path) -> Path:
    """Programs named like Slurm's, which note the call and become the real one."""
    folder, log = notes / "bin", notes / "slurm_calls.log"
    folder.mkdir(exist_ok=True)
    log.touch()
    for name in COMMANDS:
        real = shutil.which(name)
        wrapper = folder / name
        wrapper.write_text(f'#!/bin/sh\necho "$(date +%s) {name}" >>{log}\nexec {real} "$@"\n')
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return folder
