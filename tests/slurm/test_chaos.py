"""Everything that can happen to a job happens; one more identical command repairs all of it.

Real trainings on a real Slurm. The measure of "repaired" is independent of the sweep's own
bookkeeping: every ``row_digest`` equals that of a study that nothing happened to.
"""

from __future__ import annotations

import json
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.slurm.cluster import Cluster, full_disk
from tests.slurm.processes import kill, parent, resume, state, was_warned
from tests.slurm.study import ON_SLURM, Study
from tests.slurm.tearing import stop_while_writing

pytestmark = [pytest.mark.slurm, pytest.mark.chaos]
AXES = ("method=standard,at", "seed=0,1,2,3,4", "early_stopping=false,true")
(
    REQUEUED,
    OUT_OF_TIME,  # seed 1: the partition `short`
    PREEMPTED,  # seed 2: the partition `scavenge`
    CANCELLED,
    WORKER_KILLED,
    TASK_KILLED,
    NODE_LOST,
    RAISING,
    DISK_FULL,
    UNDISTURBED,
) = LINES = range(10)
GO_ON_ALONE = (REQUEUED, OUT_OF_TIME, PREEMPTED, WORKER_KILLED, NODE_LOST, DISK_FULL)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the same study, run here without Slurm."""
    study = Study(tmp_path_factory.mktemp("undisturbed"), "chaos", AXES)
    study.launch("hydra.launcher.processes=2")
    assert len(study.digests()) == 20
    return study.digests()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for little more than the study."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["cp", "--recursive", folder, tmp_path / "left"], check=True)  # to look at
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def breakable(cluster: Cluster) -> Iterator[Cluster]:
    yield cluster
    cluster.restart_controller()


def test_one_more_command_completes_everything(
    breakable: Cluster, small_disk: Path, undisturbed: dict[str, str]
) -> None:
    cluster = breakable
    study = Study(small_disk / "results", "chaos", AXES)
    jobs, broken = submit(cluster, study)
    workers = study.suspend_workers(
        sorted({*LINES} - {RAISING, UNDISTURBED, OUT_OF_TIME}), seconds=240
    )
    cluster.run("scontrol", "release", jobs[OUT_OF_TIME])  # its minutes begin here
    cluster.run("scontrol", "requeue", jobs[REQUEUED])
    cluster.run("scancel", jobs[CANCELLED])
    kill_while_writing(study, WORKER_KILLED, workers[WORKER_KILLED])
    kill(parent(workers[TASK_KILLED]))
    resume(workers[TASK_KILLED])
    cluster.lose_node("gpu3")
    cluster.run("sbatch", "--partition=gpu", "--nodelist=gpu2", "--cpus-per-task=8", "--mem=1",
                "--output=/dev/null", "--wrap=true")  # fmt: skip
    workers |= study.suspend_workers([OUT_OF_TIME], seconds=45)
    cluster.wait(lambda: was_warned(workers[OUT_OF_TIME]), "the time limit", seconds=120)
    resume(workers[OUT_OF_TIME])
    cluster.wait(lambda: "down" in cluster.node_state("gpu3"), "the node to go down")
    cluster.start()
    cluster.wait(lambda: {*cluster.jobs()} == {jobs[DISK_FULL]}, "the others to end", seconds=240)
    fill_the_disk(cluster, small_disk, jobs[DISK_FULL], workers[DISK_FULL])
    cluster.drain(seconds=120)

    check_that_it_happened(cluster, study, jobs)
    finished = {p: p.stat().st_mtime_ns for p in finished_files(study)}
    broken.unlink()
    printed = study.launch(*ON_SLURM)
    assert "running 3 to train" in printed
    cluster.drain(seconds=240)

    assert study.digests() == undisturbed
    assert {p: p.stat().st_mtime_ns for p in finished} == finished, "a finished step was repeated"
    check_nothing_is_torn(study)
    assert "nothing to do" in study.launch(*ON_SLURM)


def submit(cluster: Cluster, study: Study) -> tuple[dict[int, str], Path]:
    """Submit all lines, each to where its fate awaits it; returns the jobs and what is broken."""
    study.launch(
        *ON_SLURM,
        "hydra.launcher.gpus=0",  # ten jobs at once
        "+hydra.launcher.sbatch.hold=true",
        "+hydra.launcher.per.seed.1={partition: short, time_min: 2}",
        "+hydra.launcher.per.seed.2={partition: scavenge}",
    )
    jobs = {line: job_id(study, line) for line in LINES}
    places = {line: ["ExcNodeList=gpu2,gpu3"] for line in LINES}
    places |= {NODE_LOST: ["ReqNodeList=gpu3"], PREEMPTED: ["ReqNodeList=gpu2"]}
    for line in {*LINES} - {OUT_OF_TIME, PREEMPTED}:
        places[line] += ["Partition=gpu", "TimeLimit=30"]
    for line, changes in places.items():
        cluster.run("scontrol", "update", f"JobId={jobs[line]}", *changes)
    broken = study.training(RAISING) / "checkpoint.pt"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"not a checkpoint")
    cluster.run("scontrol", "release", *(jobs[line] for line in LINES if line != OUT_OF_TIME))
    return jobs, broken


def check_that_it_happened(cluster: Cluster, study: Study, jobs: dict[int, str]) -> None:
    """Slurm's accounting, the rows and the attempts tell of every misfortune."""
    rows = study.rows()
    raised = [rows[study.jobs()[RAISING].model_id(c)] for c in ("last", "best")]
    assert [row["status"] for row in raised] == ["failed", "failed"]
    assert "no checkpoint" in raised[0]["reason"]
    for line in (*GO_ON_ALONE, UNDISTURBED):
        row = rows.get(study.jobs()[line].model_id("last"))
        assert row is not None and row["status"] == "done", study.log(line)  # noqa: PT018
    ends = {line: cluster.history(job) for line, job in jobs.items()}
    assert ends[RAISING] == ["FAILED"]
    assert ends[UNDISTURBED] == ["COMPLETED"]
    assert ends[CANCELLED] == ["CANCELLED"]
    assert ends[TASK_KILLED] == ["FAILED"]
    assert ends[WORKER_KILLED] == ["COMPLETED"]
    assert ends[REQUEUED] == ["REQUEUED", "COMPLETED"]
    # a job that is told in time requeues itself, before Slurm has written that it was preempted
    assert ends[PREEMPTED] in (["PREEMPTED", "COMPLETED"], ["REQUEUED", "COMPLETED"])
    assert ends[NODE_LOST] == ["NODE_FAIL", "COMPLETED"]
    assert ends[OUT_OF_TIME] == ["REQUEUED", "COMPLETED"]
    assert ends[DISK_FULL] == ["REQUEUED", "COMPLETED"]
    attempts = {line: len(study.attempts(line)) for line in LINES}
    assert attempts == dict.fromkeys(GO_ON_ALONE, 2) | dict.fromkeys(
        (CANCELLED, TASK_KILLED, RAISING, UNDISTURBED), 1
    )


def fill_the_disk(cluster: Cluster, disk: Path, job: str, worker: int) -> None:
    """Fill the disk under a worker, until its job has given up; then free it."""
    with full_disk(disk):
        resume(worker)
        cluster.wait(
            lambda: cluster.jobs().get(job) == "PENDING", "the job to be requeued", hurry=False
        )


def job_id(study: Study, line: int) -> str:
    found = study.slurm_job(line)
    assert found is not None, f"line {line} is not in the queue"
    return found


def kill_while_writing(study: Study, line: int, worker: int) -> None:
    """Kill a worker at a moment when half a checkpoint is on disk."""
    aside = stop_while_writing(worker, study.training(line) / "checkpoint.pt")
    written = aside.stat().st_size
    kill(worker)
    while Path(f"/proc/{worker}").exists() and state(worker) != "Z":
        time.sleep(0.01)
    assert aside.stat().st_size == written
    assert not zipfile.is_zipfile(aside), "the checkpoint is torn"


def finished_files(study: Study) -> list[Path]:
    """What a finished training has left, which nobody has a reason to touch again."""
    rows = study.rows()
    files: list[Path] = []
    for job in study.jobs().values():
        models = [job.model_id(c) for c in job.checkpoints]
        if all(rows.get(model, {}).get("status") == "done" for model in models):
            files += [study.store.model(model) / "row.json" for model in models]
            files += study.store.training(job.training_id).glob("*.safetensors")
            files += study.store.training(job.training_id).glob("history.jsonl")
    assert files
    return files


def check_nothing_is_torn(study: Study) -> None:
    """Every file that a reader may open is whole."""
    for line, job in study.jobs().items():
        folder = study.training(line)
        for name in ("initial", "best", "last"):
            assert load_file(folder / f"{name}.safetensors")
        history = (folder / "history.jsonl").read_text().splitlines()
        assert [json.loads(record)["epoch"] for record in history] == [1, 2, 3, 4]
        for checkpoint in job.checkpoints:
            correct = study.store.read_correct(job.model_id(checkpoint))
            assert all(isinstance(v, np.ndarray) and len(v) for v in correct.values())
