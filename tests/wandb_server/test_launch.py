"""The real command: a training seen in W&B equals one without it, and its files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep.store import Row, Store
from sweep.tracking import TrackingSettings
from sweep.tracking.content import read_history, summary
from sweep.tracking.sync import sync
from tests.wandb_server.proxy import HostileProxy, Mood
from tests.wandb_server.service import Service

PROJECT = Path(__file__).resolve().parents[2]
SMALL = (
    *("dataset=digits", "method=at", "steps=1", "training.epochs=2", "measures=path_norm"),
    *("dataset.train_size=64", "dataset.test_size=32", "tracking.jitter_s=0"),
)


def launch(results: Path, *overrides: str) -> tuple[Store, str, Row, float]:
    """Train one small model; returns the store, the study's name, the row and the seconds."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "launch.py", *SMALL, f"results_dir={results}", *overrides],
        cwd=PROJECT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    store = Store(results)
    (path,) = results.glob("models/*/row.json")
    row = store.read_row(path.parent.name)
    assert row is not None
    (study,) = store.studies()
    return store, study, row, time.monotonic() - started


@pytest.mark.usefixtures("logged_in")
def test_launch_online_and_on_a_hostile_service(
    service: Service,
    proxy: HostileProxy,
    settings: TrackingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, _, plain, _ = launch(tmp_path / "none", "tracking=none")
    monkeypatch.setenv("WANDB_BASE_URL", proxy.url)
    store, study, row, _ = launch(tmp_path / "online")
    assert row["row_digest"] == plain["row_digest"]
    held = service.run(row["model_id"])
    missing = [k for k, v in summary(row).items() if v is not None and held["summary"].get(k) != v]
    assert missing == []
    records = read_history(store.training(row["training_id"]) / "history.jsonl")
    assert [r["epoch"] for r in service.history(row["model_id"])] == [r["epoch"] for r in records]
    assert sync(store, study, settings).complete == [row["model_id"]]

    service.forget_runs()
    mood: Mood = "silent"
    proxy.mood = mood
    store, study, row, _ = launch(tmp_path / "hostile", "tracking.finish_timeout_s=2")
    assert row["row_digest"] == plain["row_digest"]
    assert service.run_ids() == set()
    proxy.mood = "good"
    assert sync(store, study, settings).updated == [row["model_id"]]
