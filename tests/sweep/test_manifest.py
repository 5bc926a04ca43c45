"""The manifest only grows, numbers its lines truly, and a part never shrinks a study."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sweep import manifest, steps
from sweep.cli.options import tracking_of
from sweep.plan import plan
from sweep.store import Store, read_manifest


def test_lines_and_numbers(tmp_path: Path) -> None:
    here = f"results_dir={tmp_path}"
    whole = plan(["method=at,trades", "early_stopping=false,true", "study.name=s", here])
    assert manifest.append(whole.store, "s", whole.jobs) == [0, 1]
    assert manifest.append(whole.store, "s", whole.jobs) == [0, 1], "nothing new, nothing written"
    part = plan(["method=trades", "early_stopping=true", "study.name=s", here, "measures=[params]"])
    assert manifest.append(part.store, "s", part.jobs) == [2]
    # of the training whose last line is another one, the old line is written again
    assert manifest.append(whole.store, "s", whole.jobs) == [0, 3]
    lines = list(read_manifest(tmp_path / "studies" / "s" / "manifest.jsonl"))
    assert [line["training_id"] for line in lines] == [
        whole.jobs[i].training_id for i in (0, 1, 1, 1)
    ]
    assert manifest.append(part.store, "s", part.jobs) == [4]
    jobs = manifest.jobs(part.store, "s")
    assert set(jobs) == {0, 4}
    assert jobs[4].checkpoints == ("last", "best")
    assert jobs[4].measuring.names == ("params",)
    assert jobs[4].axes["last"]["method"] == "trades"


def test_what_is_asked_for_last_stands_last(tmp_path: Path) -> None:
    def asked(*overrides: str) -> list[int]:
        planned = plan([*overrides, "study.name=s", f"results_dir={tmp_path}"])
        return manifest.append(planned.store, "s", planned.jobs)

    first = ("method=at,trades", "measuring.images=50")
    assert asked(*first) == [0, 1]
    assert asked("method=mart", "measuring.images=60") == [2]
    assert asked(*first) == [0, 3]
    assert asked(*first) == [0, 3]


def test_tracking_is_that_of_the_line_submitted_last(tmp_path: Path) -> None:
    for overrides in (["method=at,trades"], ["method=at", "tracking.project=new"]):
        planned = plan([*overrides, "study.name=s", f"results_dir={tmp_path}"])
        manifest.append(planned.store, "s", planned.jobs)
    assert tracking_of(planned.store, "s").project == "new"


def test_a_line_of_an_earlier_version_is_known(tmp_path: Path) -> None:
    planned = plan(["method=at", "study.name=s", f"results_dir={tmp_path}"])
    manifest.append(planned.store, "s", planned.jobs)
    path = tmp_path / "studies" / "s" / "manifest.jsonl"
    (line,) = read_manifest(path)
    del line["images"], line["spec"]["recipe"]["fold_batch_norm"]
    path.write_text(json.dumps(line) + "\n")
    assert manifest.append(planned.store, "s", planned.jobs) == [0]


def test_a_users_own_measure_is_frozen_with_the_study(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def twice(context):\n    return 2.0\n")
    here = (f"results_dir={tmp_path}", "study.name=s", f"measures=[{mine}:twice]")
    planned = plan(["method=at,trades", *here])
    manifest.append(planned.store, "s", planned.jobs)
    threat, size = planned.jobs[0].spec.threat, planned.jobs[0].train_size
    wanted = steps.measure_definitions(planned.jobs[0].measuring, threat, size)
    mine.write_text("def twice(context):\n    return 3.0\n")
    for job in manifest.jobs(planned.store, "s").values():
        (name,) = job.measuring.names
        assert name.startswith(str(tmp_path / "studies" / "s" / "measures"))
        assert "2.0" in Path(name.rpartition(":")[0]).read_text()
        assert steps.measure_definitions(job.measuring, threat, size) == wanted


def test_results_with_a_users_measure_may_be_moved(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def twice(context):\n    return 2.0\n")
    here = tmp_path / "here"
    planned = plan([f"results_dir={here}", "study.name=s", f"measures=[{mine}:twice]"])
    manifest.append(planned.store, "s", planned.jobs)
    path = here / "studies" / "s" / "manifest.jsonl"
    (line,) = read_manifest(path)
    (name,) = line["measuring"]["names"]
    assert not Path(name).is_absolute()
    # as first versions wrote it down: known as the same task, and found all the same
    line["measuring"]["names"] = [f"{path.parent}/{name}"]
    path.write_text(json.dumps(line) + "\n")
    assert manifest.append(planned.store, "s", planned.jobs) == [0]

    shutil.move(here, tmp_path / "there")
    mine.unlink()
    moved = Store(tmp_path / "there")
    threat, size = planned.jobs[0].spec.threat, planned.jobs[0].train_size
    for job in (
        *manifest.jobs(moved, "s").values(),
        manifest.job(moved.study("s") / "manifest.jsonl", 0),
    ):
        assert set(steps.measure_definitions(job.measuring, threat, size)) == {"twice"}


def test_two_files_may_not_define_the_same_measure(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / f"{name}.py").write_text(f"def mine(context):\n    return {value}\n")
    both = f"measures=[{tmp_path}/a.py:mine,{tmp_path}/b.py:mine]"
    with pytest.raises(ValueError, match=r"b\.py:mine: another file defines a mine too"):
        plan([f"results_dir={tmp_path}", "study.name=s", both])
