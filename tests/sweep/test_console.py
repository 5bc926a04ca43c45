"""What a person reads while a model is trained."""

from __future__ import annotations

from typing import Any

import pytest

from sweep.console import epoch_line, follow_one

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
