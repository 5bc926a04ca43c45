"""The manifest only grows, numbers its lines truly, and a part never shrinks a study."""

from __future__ import annotations

from pathlib import Path

from sweep import manifest
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
