"""W&B: what a model's run costs a job, and `sync` against `wandb sync` on the same folders.

Needs openwandb (``.ci/wandb-server.sh``). Each side gets a server of its own, started alike.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sweep import manifest, tracking
from sweep.convert import to_plain
from sweep.store import Store
from sweep.tracking import TrackingSettings, live
from sweep.tracking.settings import client_environment
from sweep.tracking.sync import sync
from tests.sweep.tracking.fabricate import STUDY, study
from tests.wandb_server.service import API_KEY, Service

RUNS = 300


def write_offline(store: Store, settings: TrackingSettings) -> dict[str, float]:
    """Seconds that the job waits, and of processor time in all, per finished model."""
    started = time.perf_counter()
    for job in manifest.jobs(store, STUDY).values():
        for checkpoint in job.checkpoints:
            row = store.read_row(job.model_id(checkpoint))
            assert row is not None
            path = store.training(job.training_id) / "history.jsonl"
            config = to_plain(job.spec)
            tracking.write_run(settings, store.study(STUDY), STUDY, row, path, config)
    tracking.drain(600)
    wall = time.perf_counter() - started
    assert live._handle is not None
    live._handle.close()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_s_per_run": wall / RUNS,
        "cpu_s_per_run": (children.ru_utime + children.ru_stime) / RUNS,
    }


def theirs(folder: Path) -> float:
    """Seconds that `wandb sync` takes for all offline folders."""
    folders = sorted(map(str, folder.glob("offline-run-*")))
    assert len(folders) == RUNS
    scratch = folder / "tmp" / "theirs"
    scratch.mkdir(parents=True)
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "wandb", "sync", *folders],
        env=client_environment(folder, scratch),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    return time.perf_counter() - started


def main() -> None:
    """Print the measured seconds as JSON."""
    os.environ["WANDB_API_KEY"] = API_KEY
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        offline = TrackingSettings(online=False)
        store = study(root / "results", RUNS // 2, offline)
        result = write_offline(store, offline)
        folder = store.study(STUDY) / "wandb"

        server = Service(root / "ours")
        os.environ["WANDB_BASE_URL"] = server.url
        started = time.perf_counter()
        report = sync(store, STUDY, TrackingSettings())
        result["sync_s"] = time.perf_counter() - started
        assert report.ok
        assert len(server.run_ids()) == RUNS
        started = time.perf_counter()
        assert len(sync(store, STUDY, TrackingSettings()).complete) == RUNS
        result["second_sync_s"] = time.perf_counter() - started
        server.stop()

        server = Service(root / "theirs")
        os.environ["WANDB_BASE_URL"] = server.url
        result["wandb_sync_s"] = theirs(folder)
        result["wandb_sync_runs"] = len(server.run_ids())
        server.stop()
    print(json.dumps({name: round(value, 3) for name, value in result.items()}, indent=1))


if __name__ == "__main__":
    main()
