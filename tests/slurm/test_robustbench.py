"""study=robustbench on a real Slurm, with the package itself: the same rows as without Slurm."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sweep.store import Store
from tests.slurm.cluster import PROJECT, Cluster
from tests.slurm.study import ON_SLURM
from tests.sweep import small_zoo

pytestmark = pytest.mark.zoo


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=PROJECT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_two_models_of_the_zoo(cluster: Cluster, tmp_path: Path) -> None:
    small_zoo.write_images(tmp_path / "small.npz")
    small_zoo.write_weights(tmp_path / "zoo")
    digests = []
    for name, launcher in (("local", ()), ("slurm", ON_SLURM)):
        results = tmp_path / name
        shutil.copytree(tmp_path / "zoo", results / "zoo")
        study = small_zoo.study(tmp_path / "small.npz", results)
        run("-m", "sweep", "prepare", *study)
        run("launch.py", "-m", *study, *launcher)
        if launcher:
            jobs = cluster.jobs()
            cluster.drain(seconds=120)
            assert {state for job in jobs for state in cluster.ended(job).values()} == {"COMPLETED"}
            assert "nothing to" in run("launch.py", "-m", *study, *launcher)
        store = Store(results)
        rows = [store.read_row(path.name) for path in sorted((results / "models").iterdir())]
        assert [row and row["status"] for row in rows] == ["done", "done"]
        digests.append([row and row["row_digest"] for row in rows])
    assert digests[0] == digests[1]
