"""A real server holds what the files say: logged live, synced from offline, synced again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweep import manifest, tracking
from sweep.convert import to_plain
from sweep.store import Store
from sweep.table import collect
from sweep.tracking import TrackingSettings
from sweep.tracking.content import loggable
from sweep.tracking.sync import sync
from tests.sweep.tracking.fabricate import STUDY, history, job, study, write_history
from tests.wandb_server.proxy import HostileProxy
from tests.wandb_server.service import Service

TRAININGS = 4


def play(store: Store, settings: TrackingSettings) -> None:
    """What tasks do: log the epochs of each training, finish one model, write the other."""
    for job_ in manifest.jobs(store, STUDY).values():
        records = history(job_.spec.seed)
        path = store.training(job_.training_id) / "history.jsonl"
        last, best = (store.read_row(job_.model_id(c)) for c in job_.checkpoints)
        assert last is not None
        assert best is not None
        config = to_plain(job_.spec)
        folder = store.study(STUDY)
        with tracking.LiveRun(
            settings,
            folder,
            STUDY,
            last["model_id"],
            job_.training_id,
            last["axes"],
            config,
            path,
        ) as run:
            for record in records:
                run.log_epoch(record)
            run.finish(last)
        tracking.write_run(settings, folder, STUDY, best, path, config)
    tracking.drain(60)


def assert_equal_to_files(service: Service, store: Store) -> None:
    """Field by field: the table's columns against the summary, the axes against the config."""
    table = collect(store, STUDY)
    assert service.run_ids() >= set(table["model_id"])
    for record in table.to_dict("records"):
        remote = service.run(record["model_id"])
        stored = store.read_row(record["model_id"])
        assert stored is not None
        for axis, level in stored["axes"].items():
            assert remote["config"].get(axis) == level, axis
            assert type(remote["config"].get(axis)) in (type(level), int)
        record["status"] = stored["status"]  # the table says whether the row is up to date
        for column in set(record) - set(stored["axes"]):
            value = record[column]
            expected = None if pd.isna(value) else value
            assert remote["summary"].get(column) == expected, column
        assert remote["state"] == "finished"
        expected_history = [
            {k: float(v) for k, v in loggable(r).items()}
            for r in history(int(record["training_id"], 16))
        ]
        assert service.history(record["model_id"]) == expected_history


def meaning(service: Service) -> dict[str, Any]:
    """All that a server holds, but for what differs between any two: addresses in links."""
    everything = service.everything()
    for run, _ in everything.values():
        run["summary"].pop("link/sibling", None)
        run["tags"].sort()
    return everything


@pytest.mark.usefixtures("logged_in")
def test_online_equals_offline_then_synced_equals_rows(
    service: Service,
    settings: TrackingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    online = study(tmp_path / "online", TRAININGS, settings)
    play(online, settings)
    assert not list((online.study(STUDY) / "wandb").glob("missing/*"))
    assert len(sync(online, STUDY, settings).complete) == 2 * TRAININGS  # nothing left to send
    assert_equal_to_files(service, online)
    held_online = meaning(service)

    other = Service(tmp_path / "other")
    try:
        monkeypatch.setenv("WANDB_MODE", "offline")
        offline = study(tmp_path / "offline", TRAININGS, settings)
        play(offline, settings)
        assert len(list((offline.study(STUDY) / "wandb").glob("offline-run-*"))) == 2 * TRAININGS
        assert other.run_ids() == set()
        monkeypatch.setenv("WANDB_BASE_URL", other.url)
        progress: list[tuple[int, int]] = []
        report = sync(offline, STUDY, settings, progress=lambda n, of: progress.append((n, of)))
        assert len(report.updated) == 2 * TRAININGS
        assert progress[-1] == (2 * TRAININGS, 2 * TRAININGS)
        assert_equal_to_files(other, offline)
        assert meaning(other) == held_online
    finally:
        other.stop()


@pytest.mark.usefixtures("logged_in")
def test_second_sync_changes_nothing(
    service: Service, settings: TrackingSettings, tmp_path: Path
) -> None:
    store = study(tmp_path / "results", 2, settings)
    assert len(sync(store, STUDY, settings).updated) == 4
    before = service.everything()
    report = sync(store, STUDY, settings)
    assert len(report.complete) == 4
    assert not report.updated
    assert service.everything() == before


@pytest.mark.usefixtures("logged_in")
def test_measure_added_later_and_column_that_went_away(
    service: Service, settings: TrackingSettings, tmp_path: Path
) -> None:
    store = study(tmp_path / "results", 2, settings)
    sync(store, STUDY, settings)
    changed = store.read_row(job(1, settings).model_id("best"))
    assert changed is not None
    changed["measures"]["my_measure"] = {"value": 2.5, "se": 0.5, "reason": None, "definition": "d"}
    del changed["measures"]["m3"]
    store.write_row(changed)
    report = sync(store, STUDY, settings)
    assert report.ok, report.broken
    assert report.updated == [changed["model_id"]]
    held = service.run(changed["model_id"])["summary"]
    assert held["measure/my_measure"] == 2.5
    assert held["measure/m3"] == "NaN"
    assert len(service.history(changed["model_id"])) == 5


@pytest.mark.usefixtures("logged_in")
def test_damaged_files_are_named_and_the_others_go_on(
    service: Service,
    settings: TrackingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = study(tmp_path / "results", 3, settings)
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        play(store, settings)
    folders = sorted((store.study(STUDY) / "wandb").glob("offline-run-*"))
    log = next(folders[0].glob("*.wandb"))
    log.write_bytes(log.read_bytes()[:-10])
    shutil.rmtree(folders[1])
    broken_row = store.model(job(0, settings).model_id("last")) / "row.json"
    broken_row.write_text("{")
    (store.training(job(1, settings).training_id) / "history.jsonl").write_text("no json\n\n")

    report = sync(store, STUDY, settings)

    assert list(report.damaged_folders) == [str(folders[0])]
    assert "cut short" in report.damaged_folders[str(folders[0])]
    assert set(report.broken) == {
        job(0, settings).model_id("last"),
        *(job(1, settings).model_id(c) for c in ("last", "best")),
    }
    assert str(broken_row) in report.broken[job(0, settings).model_id("last")]
    assert service.run_ids() == set(report.updated)
    assert len(report.updated) == 3


@pytest.mark.usefixtures("logged_in")
@pytest.mark.parametrize("end", ["interrupted", "killed"])
def test_training_goes_on_without_gap_or_duplicate(
    service: Service,
    proxy: HostileProxy,
    settings: TrackingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
) -> None:
    """Epochs 1 to 3 were durable, 1 and 2 of them handed over; then run again to the end."""
    monkeypatch.setenv("WANDB_BASE_URL", proxy.url)
    store = study(tmp_path / "results", 1, settings)
    only = job(0, settings)
    model_id = only.model_id("last")
    records = history(0)
    write_history(store, only, records[:3])
    assert attempt(store, 2, end) == (-signal.SIGKILL if end == "killed" else 0)
    if end == "interrupted":
        assert [r["epoch"] for r in service.history(model_id)] == [1.0, 2.0, 3.0]
    write_history(store, only, records)
    assert attempt(store, 5, "finished") == 0
    assert service.history(model_id) == [
        {k: float(v) for k, v in loggable(r).items()} for r in records
    ]
    assert model_id in sync(store, STUDY, settings).complete


def attempt(store: Store, epochs: int, end: str) -> int:
    program = Path(__file__).with_name("attempt.py")
    command = [sys.executable, str(program), str(store.root), str(epochs), end]
    path = os.pathsep.join(sys.path)
    return subprocess.run(command, timeout=60, env={**os.environ, "PYTHONPATH": path}).returncode


@pytest.mark.usefixtures("logged_in")
def test_only_finished_leaves_interrupted_trainings_out(
    service: Service, settings: TrackingSettings, tmp_path: Path
) -> None:
    store = study(tmp_path / "results", 2, settings)
    unfinished = job(1, settings)
    for checkpoint in unfinished.checkpoints:
        (store.model(unfinished.model_id(checkpoint)) / "row.json").unlink()
    report = sync(store, STUDY, settings, only_finished=True)
    assert len(report.updated) == 2
    assert set(report.unfinished) == {unfinished.model_id(c) for c in unfinished.checkpoints}
    report = sync(store, STUDY, settings)
    assert set(report.updated) == {unfinished.model_id(c) for c in unfinished.checkpoints}
    assert len(service.history(unfinished.model_id("last"))) == 5
