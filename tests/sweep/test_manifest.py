"""The manifest only grows, numbers its lines truly, and a part never shrinks a study."""

from __future__ import annotations

from pathlib import Path

from sweep import manifest, steps
from sweep.plan import plan
from sweep.store import read_manifest


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
