"""A service that misbehaves: no job fails or waits long, and one sync makes everything complete."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sweep import manifest, tracking
from sweep.convert import to_plain
from sweep.store import Row, Store
from sweep.tracking import TrackingSettings, live
from sweep.tracking.server import ServiceError
from sweep.tracking.sync import sync
from tests.sweep.tracking.fabricate import STUDY, history, job, study
from tests.wandb_server.proxy import HostileProxy, Mood
from tests.wandb_server.service import API_KEY, Service

FINISH_S = 3.0
FEW_SECONDS = FINISH_S + 3.0  # the machine may be busy
EPOCH_S = 0.05


@pytest.fixture
def settings() -> TrackingSettings:
    return TrackingSettings(jitter_s=0.0, finish_timeout_s=FINISH_S, init_timeout_s=5.0)


def task(
    store: Store,
    number: int,
    settings: TrackingSettings,
    after_epoch: Callable[[int], None] = lambda epoch: None,
) -> Row:
    """A task without the training: its epochs take ``EPOCH_S`` each. Returns the row it wrote."""
    job_ = job(number, settings)
    row = store.read_row(job_.model_id("last"))
    assert row is not None
    row = store.write_row(row)
    path = store.training(job_.training_id) / "history.jsonl"
    with tracking.LiveRun(
        settings,
        store.study(STUDY),
        STUDY,
        row["model_id"],
        job_.training_id,
        row["axes"],
        to_plain(job_.spec),
        path,
    ) as run:
        for record in history(number):
            time.sleep(EPOCH_S)
            run.log_epoch(record)
            after_epoch(record["epoch"])
        run.finish(row)
    return row


def end_of_process() -> None:
    """What happens when a job's process ends."""
    ours, live._handle = live._handle, None
    if ours is not None:
        ours.close()


@pytest.mark.usefixtures("logged_in")
@pytest.mark.parametrize("mood", ["slow", "busy", "error", "drop", "silent"])
def test_task_is_neither_failed_nor_held_up(
    service: Service,
    proxy: HostileProxy,
    settings: TrackingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mood: Mood,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", proxy.url)
    store = study(tmp_path / "results", 1, settings)
    expected = store.read_row(job(0, settings).model_id("last"))
    assert expected is not None
    proxy.mood = mood
    started = time.monotonic()

    def after_epoch(epoch: int) -> None:
        nonlocal started
        if epoch == 4:  # the recorder may need longer to start than these epochs take
            begun = time.monotonic()
            while not proxy.moods_seen[mood] and time.monotonic() < begun + 30:
                time.sleep(0.05)
            started += time.monotonic() - begun

    row = task(store, 0, settings, after_epoch)
    in_task = time.monotonic() - started
    end_of_process()
    in_all = time.monotonic() - started

    assert row["row_digest"] == expected["row_digest"]
    assert in_task < 5 * EPOCH_S + 1.0
    assert in_all < 5 * EPOCH_S + FEW_SECONDS
    assert proxy.moods_seen[mood] > 0
    model_id = row["model_id"]
    noted = (store.study(STUDY) / "wandb" / "missing" / f"{model_id}.json").exists()
    assert noted or model_id in service.run_ids()

    proxy.mood = "good"
    report = sync(store, STUDY, settings)
    assert report.ok, report.broken
    assert len(service.history(model_id)) == 5
    assert not list((store.study(STUDY) / "wandb" / "missing").glob("*"))


@pytest.mark.usefixtures("logged_in")
def test_service_that_vanishes_in_mid_run(
    service: Service,
    proxy: HostileProxy,
    settings: TrackingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", proxy.url)
    store = study(tmp_path / "results", 1, settings)

    def after_epoch(epoch: int) -> None:
        if epoch == 3:
            deadline = time.monotonic() + 20
            while not service.run_ids() and time.monotonic() < deadline:
                time.sleep(0.1)  # the run has begun when its service goes away
            proxy.vanish()

    row = task(store, 0, settings, after_epoch)
    started = time.monotonic()
    end_of_process()
    assert time.monotonic() - started < FEW_SECONDS
    note = store.study(STUDY) / "wandb" / "missing" / f"{row['model_id']}.json"
    assert "within 3 s" in note.read_text()

    monkeypatch.setenv("WANDB_BASE_URL", HostileProxy(service.port, proxy.database).url)
    report = sync(store, STUDY, settings)
    assert report.ok, report.broken
    assert [r["epoch"] for r in service.history(row["model_id"])] == [1, 2, 3, 4, 5]
    assert not note.exists()


@pytest.mark.usefixtures("logged_in")
def test_wrong_key_is_a_note_and_never_written(
    proxy: HostileProxy,
    settings: TrackingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = "f00d" * 10
    proxy.mood = "denied"  # openwandb itself takes any key for its first user's
    monkeypatch.setenv("WANDB_BASE_URL", proxy.url)
    monkeypatch.setenv("WANDB_API_KEY", wrong)
    store = study(tmp_path / "results", 1, settings)
    row = task(store, 0, settings)
    end_of_process()
    assert (store.study(STUDY) / "wandb" / "missing" / f"{row['model_id']}.json").exists()
    with pytest.raises(ServiceError) as error:
        sync(store, STUDY, settings)
    assert wrong not in str(error.value)
    assert not files_with(tmp_path / "results", wrong)


@pytest.mark.usefixtures("logged_in")
def test_key_reaches_no_file(settings: TrackingSettings, service: Service, tmp_path: Path) -> None:
    store = study(tmp_path / "results", 1, settings)
    task(store, 0, settings)
    end_of_process()
    assert sync(store, STUDY, settings).ok
    assert not files_with(tmp_path / "results", API_KEY)
    assert API_KEY not in str(service.everything())


@pytest.mark.usefixtures("logged_in")
def test_dead_recorder_and_full_disk_are_notes_at_most(
    settings: TrackingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = study(tmp_path / "results", 1, settings)

    def kill_recorder(epoch: int) -> None:
        if epoch == 2:
            assert live._handle is not None
            os.kill(live._handle._process.pid, signal.SIGKILL)

    row = task(store, 0, settings, kill_recorder)
    end_of_process()
    assert (store.study(STUDY) / "wandb" / "missing" / f"{row['model_id']}.json").exists()

    def no_space(*args: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sweep.tracking.handle.files.write_json", no_space)
    monkeypatch.setattr("pathlib.Path.mkdir", no_space)
    task_row = task_without_files(store, settings)
    assert task_row["row_digest"] == row["row_digest"]


def task_without_files(store: Store, settings: TrackingSettings) -> Row:
    job_ = job(0, settings)
    row = store.read_row(job_.model_id("last"))
    assert row is not None
    tracking.write_run(settings, store.study(STUDY), STUDY, row, Path("nowhere"), {})
    return row


@pytest.mark.usefixtures("logged_in")
def test_200_runs_at_once_on_an_overrun_service(
    service: Service,
    proxy: HostileProxy,
    settings: TrackingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Eight jobs hand over 25 runs each in the same moment; the service refuses half the time."""
    monkeypatch.setenv("WANDB_BASE_URL", proxy.url)
    store = study(tmp_path / "results", 100, settings)
    runs = [
        (
            store.read_row(job_.model_id(checkpoint)),
            str(store.training(job_.training_id) / "history.jsonl"),
            to_plain(job_.spec),
        )
        for job_ in manifest.jobs(store, STUDY).values()
        for checkpoint in job_.checkpoints
    ]
    stop = threading.Event()

    def moods() -> None:
        while not stop.wait(0.5):
            proxy.mood = "busy" if proxy.mood == "good" else "good"

    threading.Thread(target=moods, daemon=True).start()
    crowd = []
    for number in range(8):
        payload = tmp_path / f"{number}.json"
        payload.write_text(json.dumps(runs[number::8]))
        program = Path(__file__).with_name("crowd.py")
        command = [sys.executable, str(program), str(store.study(STUDY)), str(payload)]
        path = os.pathsep.join(sys.path)
        crowd.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}))
    assert [process.wait(timeout=90) for process in crowd] == [0] * 8
    stop.set()
    proxy.mood = "good"
    report = sync(store, STUDY, settings)
    assert report.ok, report.broken
    assert len(service.run_ids()) == 200
    assert len(report.complete) + len(report.updated) == 200
    for row, _, _ in runs:
        assert row is not None
        assert len(service.history(row["model_id"])) == 5


def files_with(folder: Path, text: str) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and text.encode() in p.read_bytes()]
