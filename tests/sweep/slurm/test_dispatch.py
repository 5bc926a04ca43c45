"""Submissions as records on disk: none is left of one that was broken off before sbatch."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.slurm import dispatch, records
from sweep.slurm.arrays import Task
from sweep.slurm.limits import Limits
from sweep.slurm.options import SlurmOptions
from sweep.slurm.queue import Queue
from sweep.store import Store


def test_ctrl_c_while_slurm_is_asked_leaves_no_submission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dispatch, "check", interrupted)
    study = tmp_path / "studies" / "s"
    with pytest.raises(KeyboardInterrupt):
        dispatch._submit(
            Store(tmp_path),
            study,
            SlurmOptions(canary_min=0),
            Limits(1001, None, {}),
            [Task(0, {})],
            Queue(known=True),
            frozenset(),
        )
    assert list((study / "submissions").iterdir()) == []


def test_a_folder_without_a_record_is_no_submission_and_keeps_its_number(tmp_path: Path) -> None:
    submitted = records.new_submission(tmp_path)
    submitted.write({"arrays": [], "options": {}})
    records.new_submission(tmp_path)  # killed before it wrote its record
    assert [s.name for s in records.submissions(tmp_path)] == ["0001"]
    assert records.new_submission(tmp_path).name == "0003"


def test_halting_and_failures_agree_on_what_is_the_same_failure(tmp_path: Path) -> None:
    submission = records.new_submission(tmp_path)
    submission.add_failure(0, "RuntimeError: <object at 0x7f3ab2> needs 3.25 GB")
    submission.add_failure(1, "RuntimeError: <object at 0x19c> needs 4 GB")
    assert submission.common_failure(2) is not None
    submission.add_failure(2, "RuntimeError: another one")
    assert submission.common_failure(3) is None
