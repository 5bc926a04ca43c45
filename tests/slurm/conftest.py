"""A real Slurm for these tests: started from Debian's packages, small limits, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster

PROJECT = Path(__file__).parents[2]
PROGRAMS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "sbatch")


@pytest.fixture(scope="session")
def running_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster a session (and a port range for each of xdist's workers)."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing or os.getuid() != 0:
        pytest.skip(f"needs root and Slurm's packages; missing: {', '.join(missing) or 'root'}")
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    offset = 0 if worker is None else 50 * (1 + int(worker.removeprefix("gw")))
    environment = {
        **os.environ,
        "PATH": path,
        "SLURM_STATE": str(tmp_path_factory.mktemp("cluster")),
        "SLURM_PORT": str(7800 + offset),
        "SLURM_MAX_ARRAY_SIZE": "4",
    }
    state = Path(environment["SLURM_STATE"])  # daemons with users of their own look inside
    for folder in (state, *state.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    try:  # a start that fails half-way leaves daemons, too
        subprocess.run([PROJECT / ".ci/slurm/start.sh"], env=environment, check=True, timeout=120)
        yield Cluster(state, environment)
    finally:
        stop = [str(PROJECT / ".ci/slurm/stop.sh"), "--wipe"]
        subprocess.run(stop, env=environment, check=True, timeout=120)


@pytest.fixture
def cluster(
    running_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cluster]:
    """The cluster, with nothing in its queue, no submit limit, all nodes up."""
    monkeypatch.setenv("SLURM_CONF", str(running_cluster.state / "slurm.conf"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    running_cluster.reset()
    yield running_cluster
    running_cluster.reset()
