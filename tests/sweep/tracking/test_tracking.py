"""Tracking without any server: contents, folders, secrets, and what happens when things fail."""

from __future__ import annotations

import ast
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweep import table, tracking
from sweep.store import Store
from sweep.tracking import TrackingSettings, live
from sweep.tracking.cleanup import CleanupReport, remove_synced
from sweep.tracking.compare import LocalRun, NoRun, differences, local_runs, same
from sweep.tracking.content import display_name, read_history, run_content, summary, tags
from sweep.tracking.offline import check_folder, damaged_folders
from sweep.tracking.server import RemoteRun
from sweep.tracking.settings import client_environment, redact
from sweep.tracking.sync import sync
from tests.sweep.tracking.fabricate import STUDY, history, job, row, study, write_history

KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody is logged in."""
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    if live._handle is not None:
        live._handle.kill()
        live._handle = None


def write_first_run(store: Store, settings: TrackingSettings) -> Path:
    """Record the first model; returns W&B's folder."""
    first = job(0, settings)
    written = store.read_row(first.model_id("last"))
    assert written is not None
    path = store.training(first.training_id) / "history.jsonl"
    tracking.write_run(settings, store.study(STUDY), STUDY, written, path, {"lr": 0.1})
    return store.study(STUDY) / "wandb"


def test_online_only_if_somebody_is_logged_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrackingSettings()
    assert not settings.is_online()
    home = tmp_path / "home"
    home.mkdir()
    (home / ".netrc").write_text(f"machine api.wandb.ai\n  login user\n  password {KEY}\n")
    assert settings.is_online()
    monkeypatch.setenv("WANDB_BASE_URL", "http://elsewhere:8080")
    assert not settings.is_online()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert settings.is_online()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not settings.is_online()
    assert TrackingSettings(online=True).is_online()
    assert not TrackingSettings(online=True, mode="none").is_online()


def test_service_chosen_at_login_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "home" / ".config" / "wandb"
    folder.mkdir(parents=True)
    (folder / "settings").write_text("[default]\nbase_url = http://ours:80/\nentity = team\n")
    (tmp_path / "home" / ".netrc").write_text(f"machine ours:80\nlogin user\npassword {KEY}\n")
    assert TrackingSettings().is_online()
    environment = client_environment(tmp_path / "wandb", tmp_path / "scratch")
    assert environment["WANDB_BASE_URL"] == "http://ours:80"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"mode": "mlflow"}, "wandb, none"),
        ({"project": "a/b"}, "letters, digits"),
        ({"finish_timeout_s": 0.0}, "positive"),
        ({"jitter_s": -1.0}, "negative"),
    ],
)
def test_settings_name_what_is_valid(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TrackingSettings(**wrong)  # type: ignore[arg-type]


def test_redact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    text = redact(f"key {KEY} through https://me:secret@proxy:3128/x failed")
    assert KEY not in text
    assert "secret" not in text
    assert "proxy:3128/x failed" in text


def test_summary_has_the_columns_of_the_table(tmp_path: Path) -> None:
    settings = TrackingSettings(mode="none")
    store = study(tmp_path, 2, settings)
    columns = set(table.collect(store, STUDY).columns)
    written = store.read_row(job(1, settings).model_id("best"))
    assert written is not None
    assert columns - set(written["axes"]) == set(summary(written))


def test_content_keeps_types_and_links_the_sibling() -> None:
    only = job(1, TrackingSettings())
    final = row(only, "best")
    parts: dict[str, Any] = {
        "study": "s",
        "model_id": only.model_id("best"),
        "training_id": only.training_id,
        "axes": final["axes"],
        "config": {"recipe": {"lr": 0.1, "none": {}}, "method_parameters": {}},
        "row": final,
    }
    content = run_content(**parts, checkpoints=only.checkpoints)
    assert content.config["batch_size"] == 32
    assert content.config["extra_data"] is True
    assert content.config["recipe"] == {"lr": 0.1}  # W&B drops empty groups
    assert "method_parameters" not in content.config
    assert content.sibling == content.config["sibling"] == only.model_id("last")
    alone = run_content(**parts, checkpoints=("best",))
    assert alone.sibling is None  # a link would lead nowhere
    assert "sibling" not in alone.config
    assert content.finished
    assert "=" not in "".join(content.tags)
    assert all(len(tag) <= 64 for tag in tags("s" * 100, final["axes"]))
    assert display_name(only.model_id("best"), final["axes"]) == (
        "small_resnet at-10 b32 extra best 000000"
    )


def test_history_with_a_torn_end_and_a_damaged_middle(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    assert read_history(path) == []
    lines = [json.dumps(record) for record in history(0)]
    path.write_text("\n".join(lines) + '\n{"epoch": 6, "lo')
    assert read_history(path) == history(0)
    path.write_text("\n".join([lines[0], "{", lines[1]]) + "\n")
    with pytest.raises(ValueError, match="line 2 is damaged"):
        read_history(path)
    path.write_text("\n".join([lines[0], lines[0]]) + "\n")
    with pytest.raises(ValueError, match="epoch 1 comes twice"):
        read_history(path)


@pytest.mark.parametrize(
    ("ours", "theirs", "equal"),
    [
        (1.0, 1, True),
        (0.1 + 0.2, 0.3, False),
        (True, 1, False),
        (None, "", True),
        (None, 0, False),
        (float("nan"), "NaN", True),
        (float("-inf"), "-Infinity", True),
        ((1, 2), [1, 2], True),
        ({"a": {"b": (1,)}}, {"a": {"b": [1.0]}}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
    ],
)
def test_same(ours: object, theirs: object, equal: bool) -> None:
    assert same(ours, theirs) is equal


def test_differences_name_each_field(tmp_path: Path) -> None:
    store = study(tmp_path, 1, TrackingSettings())
    run = next(iter(local_runs(store, STUDY)))
    assert isinstance(run, LocalRun)

    def remote(**changes: object) -> RemoteRun:
        there = {
            "model_id": run.model_id,
            "state": "finished",
            "config": json.loads(json.dumps(run.content.config)),
            "summary": dict(run.content.summary),
            "tags": ("mine", *run.content.tags),
            "history_lines": 5,
            "last_epoch": 5,
        }
        return RemoteRun(**{**there, **changes})  # type: ignore[arg-type]

    assert differences(run, remote()) == []
    assert differences(run, None) == ["run"]
    assert differences(run, remote(state="running")) == ["state"]
    assert differences(run, remote(tags=())) == [f"tag {tag}" for tag in run.content.tags]
    assert differences(run, remote(last_epoch=4, history_lines=4)) == [
        "last epoch (theirs 4, ours 5)",
        "history (theirs 4 lines, ours 5)",
    ]
    assert differences(run, remote(summary={**run.content.summary, "gap": 0.5})) == ["gap"]
    extra = {**run.content.summary, "measure/gone": 0.5, "link/sibling": "x"}
    assert differences(run, remote(summary=extra)) == ["measure/gone"]
    assert differences(run, remote(config={**run.content.config, "steps": 3})) == ["config.steps"]


def test_running_and_unfinished_models_have_no_run(tmp_path: Path) -> None:
    settings = TrackingSettings()
    store = study(tmp_path, 1, settings)
    only = job(0, settings)
    (store.model(only.model_id("best")) / "row.json").unlink()
    (store.model(only.model_id("last")) / "row.json").write_text("{")
    broken, unfinished = local_runs(store, STUDY, only_finished=True)
    assert isinstance(broken, NoRun)
    assert "row.json" in str(broken.damaged)
    assert unfinished == NoRun(only.model_id("best"))
    interrupted = list(local_runs(store, STUDY))[1]
    assert isinstance(interrupted, LocalRun)
    assert not interrupted.content.finished


def test_offline_runs_lie_inside_the_study_and_are_whole(tmp_path: Path) -> None:
    settings = TrackingSettings()
    store = study(tmp_path / "results", 1, settings)
    for _ in range(2):  # the second replaces the first
        folder = write_first_run(store, settings)
        tracking.drain(60)
    (run,) = folder.glob("offline-run-*")
    check_folder(run)
    assert [p.suffix for p in run.iterdir()] == [".wandb"]
    assert not (folder / "missing").exists()
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and "results" not in p.parts]
    assert outside == []
    handle = live._handle
    assert handle is not None
    handle.close()
    assert list((folder / "tmp").iterdir()) == []


def test_damaged_offline_folders_are_named(tmp_path: Path) -> None:
    settings = TrackingSettings()
    store = study(tmp_path / "results", 1, settings)
    folder = write_first_run(store, settings)
    tracking.drain(60)
    log = next(folder.glob("offline-run-*/*.wandb"))
    whole = log.read_bytes()
    for damage, words in (
        (whole[:-3], "cut short"),
        (whole[:200] + b"\x00" + whole[201:], "damaged at byte"),
        (b"<html>" + whole, "does not begin"),
        (whole[:7], "log is empty"),
    ):
        log.write_bytes(damage)
        assert words in damaged_folders(folder)[str(log.parent)]
    log.unlink()
    assert "0 .wandb files" in damaged_folders(folder)[str(log.parent)]


def test_mode_none_does_nothing(tmp_path: Path) -> None:
    settings = TrackingSettings(mode="none")
    store = study(tmp_path, 1, settings)
    assert not write_first_run(store, settings).exists()
    with pytest.raises(ValueError, match="tracking=wandb"):
        sync(store, STUDY, settings)


def test_recorder_that_cannot_start_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrackingSettings(finish_timeout_s=5.0)
    store = study(tmp_path, 1, settings)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    folder = write_first_run(store, settings)
    started = time.monotonic()
    tracking.drain()
    assert time.monotonic() - started < 2.0
    (note,) = (folder / "missing").iterdir()
    assert "recorder" in json.loads(note.read_text())["reason"]


def test_recorder_that_hangs_holds_nobody_up_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 100\n")
    hanging.chmod(0o755)
    settings = TrackingSettings(online=True, finish_timeout_s=0.5)
    store = study(tmp_path / "results", 1, settings)
    only = job(0, settings)
    final = row(only, "last")
    path = write_history(store, only, history(0))
    monkeypatch.setattr(sys, "executable", str(hanging))
    started = time.monotonic()
    with tracking.LiveRun(
        settings, store.study(STUDY), STUDY, final["model_id"], only.training_id,
        final["axes"], {}, path,
    ) as run:  # fmt: skip
        for epoch in range(1, 1000):  # more than a pipe holds
            run.log_epoch({"epoch": epoch, "text": "x" * 200})
        run.finish(final)
    assert time.monotonic() - started < 1.0
    tracking.drain()
    assert time.monotonic() - started < 2.5
    assert (store.study(STUDY) / "wandb" / "missing" / f"{final['model_id']}.json").exists()
    assert "sweep sync" in caplog.text


def test_a_job_imports_no_wandb_and_no_torch() -> None:
    program = (
        "import sys, sweep.tracking, sweep.tracking.recorder\n"
        "print([m for m in ('wandb', 'torch', 'pandas') if m in sys.modules])"
    )
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.stdout.strip() == "[]"


def test_only_one_module_imports_the_client_for_runs() -> None:
    folder = Path(tracking.__file__).parent
    users = []
    for source in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(source.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if "wandb" in names:
                users.append(source.name)
    assert users == ["analysis_run.py", "client.py"]


def test_log_of_a_job_tells_how_to_mend(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from sweep.tracking.handle import note_missing

    with caplog.at_level(logging.WARNING):
        note_missing(tmp_path, "abc-last", "no network")
    assert "python -m sweep sync" in caplog.text


def test_without_offline_folders_there_is_nothing_to_ask_the_service(tmp_path: Path) -> None:
    settings = TrackingSettings(mode="none")
    store = study(tmp_path / "results", 1, settings)
    assert remove_synced(store, STUDY, settings) == CleanupReport()
