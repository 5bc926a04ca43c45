"""What a Slurm job does when its own log, or a file of its study, cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sweep import files
from sweep.slurm.infrastructure import Strikes


def test_a_log_on_a_full_disk_stops_nothing() -> None:
    code = "import os; from sweep.slurm.job import say; say('text'); say('more'); os._exit(7)"
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([sys.executable, "-c", code], stdout=full, check=False)
    assert result.returncode == 7


def test_a_strike_that_cannot_be_written_down_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strikes = Strikes(tmp_path)
    assert strikes.add("storage", "gpu0", "41_0", "No space left on device")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    assert not strikes.add("storage", "gpu0", "41_0", "No space left on device")
    assert strikes.of_job("41_0") == 1
