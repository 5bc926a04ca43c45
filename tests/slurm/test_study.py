"""Studies of real trainings on a real Slurm: limits, packing, faults of the cluster, halting."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from sweep import choose, failures, tend
from sweep.slurm import queue, records
from sweep.slurm.infrastructure import Strikes
from sweep.status import study_status
from tests.slurm.cluster import Cluster
from tests.slurm.processes import kill
from tests.slurm.study import ON_SLURM, Study

pytestmark = pytest.mark.slurm
AXES = ("method=standard", "seed=0,1,2,3", "early_stopping=false,true")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "results", "small", AXES)


def test_more_trainings_than_jobs_allowed_side_by_side(
    cluster: Cluster, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.limit_submissions(1)
    printed = study.launch(*ON_SLURM, "hydra.launcher.pack=2")
    assert "1 jobs for 4 tasks" in printed
    assert "up to 4 tasks a job, 2 at a time" in printed
    cluster.drain(seconds=180)
    assert [row["status"] for row in study.rows().values()] == ["done"] * 8
    logs = [path for _, path in tend.logs(study.store, "small", study.jobs())]
    assert len({p for p in logs if p.name == "log.txt"}) == 4
    assert "nothing to do" in study.launch(*ON_SLURM)

    # a tool of Slurm's that fails says nothing about the study
    for name in ("squeue", "sacct"):
        broken = tmp_path / "bin" / name
        broken.parent.mkdir(exist_ok=True)
        broken.write_text("#!/bin/sh\necho 'Socket timed out' >&2; exit 1\n")
        broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-cache"))
    status = study_status(study.store, "small")
    assert status.counts == {"done": 8}
    assert status.slurm is not None
    assert not status.slurm.known
    assert status.slurm.running == status.slurm.waiting == 0


def test_chained_trainings_share_a_process_and_are_not_repeated_by_a_requeue(
    cluster: Cluster, study: Study
) -> None:
    printed = study.launch(*ON_SLURM, "hydra.launcher.chain=4")
    assert "1 jobs for 4 tasks; " in printed
    assert "up to 4 tasks a job, 1 at a time" in printed
    (job,) = cluster.jobs()
    cluster.wait(lambda: len(study.digests()) >= 5, "two trainings to end", seconds=120)
    ended = [n for n in range(4) if (study.training(n) / "state.json").exists()]
    cluster.run("scontrol", "requeue", job)
    cluster.drain(seconds=180)
    assert [row["status"] for row in study.rows().values()] == ["done"] * 8
    first = {study.attempts(line)[0]["owner"]["pid"] for line in ended}
    assert len(first) == 1, "one process, with torch loaded once"
    assert sum(len(study.attempts(line)) for line in ended[:2]) == 2
    assert cluster.ended(job) == {job: "COMPLETED"}


def test_a_killed_worker_is_replaced_in_its_job(cluster: Cluster, tmp_path: Path) -> None:
    study = Study(tmp_path / "results", "small", ("method=standard", "early_stopping=false,true"))
    study.launch(*ON_SLURM)
    (job,) = cluster.jobs()
    (worker,) = study.suspend_workers([0], seconds=60).values()
    kill(worker)
    cluster.drain(seconds=120)
    assert [row["status"] for row in study.rows().values()] == ["done"] * 2
    assert cluster.ended(job) == {job: "COMPLETED"}
    assert len(study.attempts(0)) == 2


def test_two_submissions_at_the_same_moment_share_the_work(cluster: Cluster, study: Study) -> None:
    printed: list[str] = []
    held = (*ON_SLURM, "+hydra.launcher.sbatch.hold=true")
    both = [threading.Thread(target=lambda: printed.append(study.launch(*held))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    there = queue.query(max_age_s=0)
    lines = [line for _, e in records.elements(study.folder, there) for line in e]
    assert sorted(lines) == [0, 1, 2, 3]
    assert sum("in the queue already: 4" in text for text in printed) == 1

    chosen = choose.choose(study.store, "small", ["seed=1,2"])
    cancelled = tend.cancel(study.store, "small", chosen)
    assert (len(cancelled.jobs), cancelled.shared, cancelled.foreign) == (2, 0, {})
    cluster.wait(lambda: len(cluster.jobs()) == 2, "two jobs to be left")
    status = study_status(study.store, "small")
    assert status.slurm is not None
    assert status.slurm.known, status.slurm.problem
    assert status.slurm.reasons == (("JobHeldUser", 2),), (status.slurm, cluster.jobs("%i %T/%r"))


def test_what_waits_is_known_though_something_else_is_asked_for(
    cluster: Cluster, study: Study
) -> None:
    held = (*ON_SLURM, "+hydra.launcher.sbatch.hold=true")
    study.launch(*held)
    waiting = cluster.jobs()
    assert "in the queue already: 4" in study.launch(*held, "measures=[prob_margin]")
    assert cluster.jobs() == waiting
    cancelled = tend.cancel(study.store, "small", choose.choose(study.store, "small", []))
    assert {*cancelled.jobs} == {*waiting}
    cluster.drain()


def test_a_node_without_its_gpu_is_left_and_costs_no_retry(
    cluster: Cluster, tmp_path: Path
) -> None:
    study = Study(tmp_path / "results", "small", ("method=standard", "early_stopping=false,true"))
    needs_gpu = (*ON_SLURM, "device=cuda", "hydra.launcher.exclude_after=1")
    study.launch(*needs_gpu)
    (job,) = cluster.jobs()
    cluster.wait(lambda: Strikes(study.folder).of_job(job) >= 2, "two strikes", seconds=120)
    strikes = Strikes(study.folder)

    def excluded() -> bool:
        shown = cluster.run("scontrol", "show", "job", "--oneliner", job)
        return f"ExcNodeList={','.join(strikes.bad_nodes(1))} " in shown

    cluster.wait(excluded, "the bad nodes to be excluded")
    assert len(strikes.bad_nodes(1)) == strikes.of_job(job), "each start was on another node"
    assert study.rows() == {}
    tend.cancel(study.store, "small", study.jobs())
    again = study.launch(*needs_gpu, "+hydra.launcher.sbatch.hold=true")
    assert f"kept away from nodes that failed: {', '.join(strikes.bad_nodes(1))}" in again


def test_equal_failures_halt_what_has_not_started(cluster: Cluster, study: Study) -> None:
    held = (*ON_SLURM, "hydra.launcher.parallelism=1", "hydra.launcher.halt_after=2")
    study.launch(*held, "+hydra.launcher.sbatch.hold=true")
    jobs = list(cluster.jobs())
    for line in range(4):
        study.training(line).mkdir(parents=True)
        (study.training(line) / "checkpoint.pt").write_bytes(b"damaged")
    cluster.run("scontrol", "release", *jobs)
    cluster.drain(seconds=180)
    ended = [state.split()[0] for state in cluster.ended(jobs[0].split("_")[0]).values()]
    assert ended.count("FAILED") == 2
    assert {*ended} == {"FAILED", "CANCELLED"}
    status = study_status(study.store, "small")
    assert status.halted is not None
    assert "2 trainings failed with the same error" in status.halted
    assert status.counts == {"failed": 4, "missing": 4}
    (group,) = failures.group_failures(study.store, "small")
    assert (group.status, len(group.trainings)) == ("failed", 2)
    assert group.trace is not None
    assert "no checkpoint in" in group.trace

    for line in range(4):
        (study.training(line) / "checkpoint.pt").unlink()
    assert (
        tend.retry(study.store, "small", choose.choose(study.store, "small", ["status=failed"]))
        == 0
    )
    assert len(cluster.jobs()) == 2
