"""What a person reads while a model is trained."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweep.console import epoch_line, follow_one, show_failures, user_errors
from sweep.store import Store

RECORD: dict[str, Any] = {
    "epoch": 3,
    "lr": 0.1,
    "loss": 1.71,
    "loss/ce": 1.2,
    "loss/kl": 0.085,
    "clean_selection": 0.712,
    "pgd_selection": 0.4405,
    "labelled_epochs": 3.0,
    "images_per_second": 1240.4,
    "seconds": 40.0,
}


def test_an_epoch_is_told_with_the_time_left() -> None:
    assert epoch_line(RECORD, 200) == (
        "epoch 3/200  lr 0.1  loss 1.71 (ce 1.2, kl 0.085)  clean 71.2%  PGD 44.0%  "
        "1240 images/s  2:11:20 left"
    )
    standard = {"loss/kl": 0.0, "pgd_selection": None, "epoch": 200}
    assert "PGD" not in epoch_line(RECORD | standard, 200)
    assert epoch_line(RECORD | standard, 200).endswith("0:00:00 left")


def test_without_a_terminal_each_epoch_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with follow_one(200) as on_epoch:
        on_epoch(RECORD)
        on_epoch(RECORD | {"epoch": 4})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["epoch 3/200", "epoch 4/200"]


def test_failures_that_differ_in_ids_alone_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ["243e0bc915ced1ff", "d7f87e3d0e7ad5f9"]
    ends = [
        {"task": i, "outcome": "failed", "reason": f"ValueError: no checkpoint in {name}"}
        for i, name in enumerate(ids)
    ]
    jobs: Any = {i: SimpleNamespace(training_id=name) for i, name in enumerate(ids)}
    show_failures(ends, jobs, Store(tmp_path))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"2 failed: ValueError: no checkpoint in {ids[0]}; see ")


def test_ctrl_c_is_no_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, user_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "stopped; the same command goes on from here\n"


def test_a_file_that_cannot_be_used_is_named_without_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit), user_errors():
        (tmp_path / "none").read_text()
    assert capsys.readouterr().err == f"error: {tmp_path}/none: No such file or directory\n"
