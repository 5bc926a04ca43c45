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
from statistics import median

from sweep import manifest, tracking
from sweep.convert import to_plain
from sweep.store import Store
from sweep.tracking import TrackingSettings, live
from sweep.tracking.settings import client_environment
from sweep.tracking.sync import sync
from tests.sweep.tracking.fabricate import STUDY, study
from tests.wandb_server.service import API_KEY, Service

RUNS = 300
ROUNDS = 4  # of two pairs each
AT_ONCE = 5  # the default of `wandb sync`


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


def theirs(folder: Path, number: int) -> float:
    """Seconds that `wandb sync` takes for all offline folders."""
    folders = sorted(map(str, folder.glob("offline-run-*")))
    scratch = folder / "tmp" / f"theirs{number}"
    scratch.mkdir(parents=True)
    started = time.perf_counter()
    subprocess.run(
        [
            *(sys.executable, "-m", "wandb", "sync", "--include-synced", "-n", str(AT_ONCE)),
            *folders,
        ],
        env=client_environment(folder, scratch),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    return time.perf_counter() - started


def ours(store: Store, settings: TrackingSettings) -> float:
    """Seconds that our `sync` takes, with reading everything back and comparing it."""
    started = time.perf_counter()
    assert sync(store, STUDY, settings, at_once=AT_ONCE).ok
    return time.perf_counter() - started


def main() -> None:
    """Print the measured seconds as JSON. The two take turns (ABBA), for other load wanders.

    A ratio is that of one pair; the median of all pairs is given, with the lowest and highest.
    """
    os.environ["WANDB_API_KEY"] = API_KEY
    offline, online = TrackingSettings(online=False), TrackingSettings()
    result: dict[str, float] = {}
    walls: dict[str, list[float]] = {"ours": [], "theirs": []}
    server_cpu = {"ours": 0.0, "theirs": 0.0}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        store = study(root / "results", RUNS // 2, offline)
        result |= write_offline(store, offline)
        folder = store.study(STUDY) / "wandb"
        assert len(list(folder.glob("offline-run-*"))) == RUNS
        for number, side in enumerate(("ours", "theirs", "theirs", "ours") * ROUNDS):
            server = Service(root / f"server{number}")
            os.environ["WANDB_BASE_URL"] = server.url
            wall = ours(store, online) if side == "ours" else theirs(folder, number)
            assert len(server.run_ids()) == RUNS
            walls[side].append(wall)
            server_cpu[side] += server.cpu_seconds()
            if number == 0:
                result["second_sync_s"] = ours(store, online)
            server.stop()
    for side, seconds in walls.items():
        result[f"{side}_s"] = median(seconds)
        result[f"{side}_server_cpu_s"] = server_cpu[side] / len(seconds)
    ratios = sorted(a / b for a, b in zip(walls["ours"], walls["theirs"], strict=True))
    result |= {"ours_by_theirs": median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
    print(json.dumps({name: round(value, 3) for name, value in result.items()}, indent=1))


if __name__ == "__main__":
    main()
