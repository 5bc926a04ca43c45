"""Looking after a study by its files: failures by cause, choosing, and what may be deleted."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from sweep import choose, dispatch, failures, files, manifest, pool, tend, worker
from sweep.plan import plan
from sweep.setting import Job, model_axes
from sweep.slurm import records
from sweep.status import study_status
from sweep.store import Store, new_row


@pytest.fixture(scope="module")
def jobs() -> tuple[Job, ...]:
    overrides = ["method=standard,at", "seed=0,1", "early_stopping=false,true", "steps=1"]
    return plan([*overrides, "architecture=wrn10_1", "measures=[]", "study.name=s"]).jobs


@pytest.fixture
def store(tmp_path: Path, jobs: tuple[Job, ...]) -> Store:
    store = Store(tmp_path / "results")
    manifest.append(store, "s", jobs)
    return store


def write(store: Store, job: Job, status: str, reason: str | None = None, **error: Any) -> None:
    """Leave behind what a task leaves that ended so."""
    folder = store.training(job.training_id)
    files.write_json(folder / "state.json", {"status": status, "reason": reason})
    if status != "done":
        files.write_json(folder / "error.json", {"reason": reason, **error})
    for checkpoint in job.checkpoints:
        row = new_row(
            model_id=job.model_id(checkpoint),
            training_id=job.training_id,
            checkpoint=checkpoint,
            num_classes=10,
            axes=model_axes(job.spec, checkpoint),
        )
        store.write_row({**row, "status": status, "reason": reason})


def test_equal_causes_are_one_group_with_nodes_and_a_trace(
    store: Store, jobs: tuple[Job, ...]
) -> None:
    write(store, jobs[0], "failed", "ValueError: bad id 12", traceback="Trace A", node="gpu1")
    write(store, jobs[1], "failed", "ValueError: bad id 7", traceback="Trace B", node="gpu1")
    write(store, jobs[2], "oom", "OutOfMemory: 3.2 GB", traceback="Trace C", node="gpu2")
    groups = failures.group_failures(store, "s")
    assert [(g.status, len(g.trainings), dict(g.nodes)) for g in groups] == [
        ("failed", 2, {"gpu1": 2}),
        ("oom", 1, {"gpu2": 1}),
    ]
    assert groups[0].trace == "Trace A"


def test_a_worker_that_vanished_is_lost_and_one_that_lives_is_not(
    store: Store, jobs: tuple[Job, ...]
) -> None:
    for job, host in ((jobs[0], "elsewhere"), (jobs[1], "elsewhere")):
        path = store.training(job.training_id) / "attempts" / "000001.json"
        files.write_json(path, {"owner": {"host": host, "node": "gpu9"}, "released": False})
    long_ago = time.time() - 3600
    os.utime(store.training(jobs[0].training_id) / "attempts" / "000001.json", (long_ago,) * 2)
    (group,) = failures.group_failures(store, "s")
    assert (group.status, group.trainings) == ("lost", [jobs[0].training_id])


def test_choosing_by_axis_status_reason_and_id(store: Store, jobs: tuple[Job, ...]) -> None:
    write(store, jobs[0], "failed", "OSError: disk")
    write(store, jobs[3], "done")

    def pick(*conditions: str) -> list[int]:
        return sorted(choose.choose(store, "s", conditions))

    assert pick() == [0, 1, 2, 3]
    assert pick("method=at") == [2, 3]
    assert pick("method=at", "seed=0") == [2]
    assert pick("steps=null") == [0, 1]
    assert pick("early_stopping=true", "status=failed") == [0]
    assert pick("reason=disk") == [0]
    assert pick(f"training={jobs[1].training_id[:6]}") == [1]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("methd=at", "did you mean method"),
        ("method=trades", "unknown method 'trades'.*valid: at, standard"),
        ("status=broken", "valid: .*diverged"),
        ("method", "is no condition"),
    ],
)
def test_conditions_that_make_no_sense(store: Store, condition: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose.choose(store, "s", [condition])


def test_status_counts_every_model_once(store: Store, jobs: tuple[Job, ...]) -> None:
    write(store, jobs[0], "diverged", "loss is not finite")
    write(store, jobs[1], "oom", "too big")
    status = study_status(store, "s")
    assert status.counts == {"diverged": 2, "oom": 2, "missing": 4}
    assert status.levels["method=at"] == {"missing": 4}
    assert status.slurm is None
    assert json.loads(json.dumps(status.as_dict()))["models"] == 8


def interpreter(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let workers be a shell script."""
    path = folder / "worker"
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(pool.sys, "executable", str(path))


def test_a_retried_worker_that_dies_is_recorded(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter(tmp_path, monkeypatch, "exit 9")
    (line, job), *_ = manifest.jobs(store, "s").items()
    assert tend.retry(store, "s", {line: job}) == 1
    (group,) = failures.group_failures(store, "s")
    assert (group.status, group.trainings) == ("failed", [job.training_id])
    assert "its process died twice (exit status 9)" in group.reason


def test_a_log_may_be_continued_by_a_colleague_where_the_umask_says_so(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        with worker.logged(tmp_path / "log.txt"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "log.txt").stat().st_mode & 0o777 == 0o664


def test_nothing_is_retried_where_results_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(ValueError, match="results cannot be written"):
        tend.retry(Store(tmp_path / "results"), "s", {})


def test_a_study_that_was_never_submitted_has_nothing_to_cancel(store: Store) -> None:
    with pytest.raises(ValueError, match="study s was never submitted to Slurm"):
        tend.cancel(store, "s", manifest.jobs(store, "s"))


def test_each_gpu_gets_a_worker_of_its_own(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter(
        tmp_path,
        monkeypatch,
        f"""echo "$CUDA_VISIBLE_DEVICES $$" >> {tmp_path}/seen
while read -r n; do
    sleep 0.2; echo '{{"event": "end", "outcome": "done", "reason": null, "task": '$n'}}'
done""",
    )
    monkeypatch.setattr(dispatch.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dispatch.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")

    def seen(processes: int | None) -> list[str]:
        (tmp_path / "seen").unlink(missing_ok=True)
        assert dispatch.run_here(store, "s", manifest.jobs(store, "s"), processes) == 0
        return sorted(line.split()[0] for line in (tmp_path / "seen").read_text().splitlines())

    assert seen(None) == ["4", "7"]
    assert seen(4) == ["4", "4", "7", "7"]
    monkeypatch.setattr(dispatch.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(dispatch.os, "cpu_count", lambda: 3)
    assert seen(None) == ["4,7"] * 3, "without a usable GPU, a process per core"


def test_garbage_is_never_a_colleagues(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/bash\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    study = store.study("s").resolve()
    for number in (1, 2):
        (study / "code" / str(number)).mkdir(parents=True)
        submission = records.new_submission(study)
        submission.write({"arrays": [], "code": str(study / "code" / str(number))})
        (submission.folder / "1_submitted.pkl").touch()
    assert len(tend.garbage(store, "s")) == 3
    monkeypatch.setattr(tend.os, "getuid", lambda: -1)
    assert tend.garbage(store, "s") == []


def test_garbage_is_never_a_result_a_result_nor_of_a_running_training(
    store: Store, jobs: tuple[Job, ...]
) -> None:
    for job in jobs[:3]:
        folder = store.training(job.training_id)
        folder.mkdir(parents=True)
        (folder / "checkpoint.pt").write_bytes(b"x" * 1000)
        (folder / "last.safetensors").write_bytes(b"weights")
        temporary = folder / ".checkpoint.pt.1.tmp"
        temporary.write_bytes(b"half")
        os.utime(temporary, (time.time() - 48 * 3600,) * 2)
    write(store, jobs[0], "done")
    write(store, jobs[1], "failed", "crash")
    alive = {"owner": {"host": "elsewhere"}, "released": False}
    files.write_json(store.training(jobs[2].training_id) / "attempts" / "000001.json", alive)
    found = tend.garbage(store, "s")
    tend.remove(found)
    assert all((store.training(j.training_id) / "last.safetensors").exists() for j in jobs[:3])
    checkpoints = [(store.training(j.training_id) / "checkpoint.pt").exists() for j in jobs[:3]]
    assert checkpoints == [False, True, True]
    halves = [(store.training(j.training_id) / ".checkpoint.pt.1.tmp").exists() for j in jobs[:3]]
    assert halves == [False, False, True]
