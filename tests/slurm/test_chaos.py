"""Everything that can happen to a job happens; one more identical command repairs all of it.

Real trainings on a real Slurm. The measure of "repaired" is independent of the sweep's own
bookkeeping: every ``row_digest`` equals that of a study that nothing happened to.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.slurm.cluster import Cluster
from tests.slurm.study import ON_SLURM, Study, kill, parent, resume

pytestmark = [pytest.mark.slurm, pytest.mark.chaos]
AXES = ("method=standard,at", "seed=0,1,2,3", "early_stopping=false,true")
LINES = range(8)
REQUEUED, OUT_OF_TIME, CANCELLED, WORKER_KILLED, TASK_KILLED, NODE_LOST, RAISING, UNDISTURBED = (
    LINES
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the same study, run here without Slurm."""
    study = Study(tmp_path_factory.mktemp("undisturbed"), "chaos", AXES)
    study.launch("hydra.launcher.processes=2")
    assert len(study.digests()) == 16
    return study.digests()


def test_one_more_command_completes_everything(
    cluster: Cluster, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    study = Study(tmp_path / "results", "chaos", AXES)
    command = (*ON_SLURM, "+hydra.launcher.sbatch.hold=true")
    # only the one that shall run out of time has a limit of a minute
    command += ("+hydra.launcher.per.seed.1={partition: short, time_min: 1}",)
    study.launch(*command)
    jobs = {line: job_id(study, line) for line in LINES}
    broken = study.training(RAISING) / "checkpoint.pt"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"not a checkpoint")
    for line in LINES:
        if study.jobs()[line].spec.seed == 1 and line != OUT_OF_TIME:
            cluster.run(
                "scontrol", "update", f"JobId={jobs[line]}", "Partition=gpu", "TimeLimit=30"
            )
    cluster.run("scontrol", "release", *jobs.values())

    workers = study.suspend_workers(sorted({*LINES} - {RAISING, UNDISTURBED}), seconds=180)

    cluster.run("scontrol", "requeue", jobs[REQUEUED])
    cluster.run("scancel", jobs[CANCELLED])
    kill_while_writing(study, WORKER_KILLED, workers[WORKER_KILLED])
    kill(parent(workers[TASK_KILLED]))
    resume(workers[TASK_KILLED])
    node = cluster.run("squeue", "--noheader", "--format=%N", f"--jobs={jobs[NODE_LOST]}").strip()
    kill(cluster.slurmd(node))
    cluster.wait(lambda: seconds_run(cluster, jobs[OUT_OF_TIME]) > 52, "the time limit")
    resume(workers[OUT_OF_TIME])
    cluster.wait(lambda: "down" in cluster.node_state(node), "the node to go down")
    kill(workers[NODE_LOST])
    cluster.start()
    cluster.drain(seconds=240)

    rows = study.rows()
    raised = [rows[study.jobs()[RAISING].model_id(c)] for c in ("last", "best")]
    assert [row["status"] for row in raised] == ["failed", "failed"]
    assert "no checkpoint" in raised[0]["reason"]
    assert cluster.ended(jobs[RAISING]) == {jobs[RAISING]: "FAILED"}
    assert "CANCELLED" in cluster.ended(jobs[CANCELLED])[jobs[CANCELLED]]
    for line in (REQUEUED, OUT_OF_TIME, WORKER_KILLED, UNDISTURBED):
        assert rows[study.jobs()[line].model_id("last")]["status"] == "done", f"line {line}"
    finished = {p: p.stat().st_mtime_ns for p in finished_files(study)}

    broken.unlink()
    printed = study.launch(*ON_SLURM)
    assert "to train" in printed
    cluster.drain(seconds=240)

    assert study.digests() == undisturbed
    assert {p: p.stat().st_mtime_ns for p in finished} == finished, "a finished step was repeated"
    check_nothing_is_torn(study)
    assert "nothing to do" in study.launch(*ON_SLURM)


def job_id(study: Study, line: int) -> str:
    found = study.slurm_job(line)
    assert found is not None, f"line {line} is not in the queue"
    return found


def kill_while_writing(study: Study, line: int, worker: int) -> None:
    """Kill a worker at a moment when half a checkpoint is on disk."""
    folder = study.training(line)
    resume(worker)
    deadline = time.monotonic() + 60
    while not list(folder.glob(f".checkpoint.pt.{worker}.tmp")):
        assert time.monotonic() < deadline, "no checkpoint was being written"
    kill(worker)
    assert list(folder.glob(f".checkpoint.pt.{worker}.tmp")), "it was faster than we were"


def seconds_run(cluster: Cluster, job: str) -> int:
    shown = cluster.run("squeue", "--noheader", "--format=%M", f"--jobs={job}").strip()
    minutes, seconds = shown.split(":")
    return 60 * int(minutes) + int(seconds)


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
