"""What sbatch is given and what Slurm makes of it. Jobs here are held: nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sweep import manifest, tend
from sweep.plan import plan
from sweep.slurm import limits, queue, records
from sweep.slurm.accounting import SubmitLimit
from sweep.slurm.arrays import Array, NoRoom, Task, plan_arrays
from sweep.slurm.options import SlurmOptions
from sweep.slurm.submit import Target, check, parameters, script, submit
from sweep.store import Store
from tests.slurm.cluster import Cluster

HELD = {"hold": True}


def arrays(count: int, options: SlurmOptions) -> list[Array]:
    tasks = [Task(i, {"method": ["at", "trades"][i % 2]}) for i in range(count)]
    return plan_arrays(tasks, options, limits.read())


@pytest.fixture
def target(tmp_path: Path) -> Target:
    study = tmp_path / "studies" / "paper"
    study.mkdir(parents=True)
    return Target(study, tmp_path, tmp_path)


def options(**changes: Any) -> SlurmOptions:
    return SlurmOptions(**{"canary_min": 0, "sbatch": HELD, "gpus": 1, "cpus": 1, **changes})


def test_sbatch_file_is_the_golden_one() -> None:
    slurm = SlurmOptions(
        time_min=600,
        gpus=2,
        cpus=8,
        memory_gb=31.5,
        partition="gpu",
        account="vision",
        qos="long",
        constraint="a100|h100",
        sbatch={"mail-type": "FAIL", "nice": 100},
        setup=("module load cuda/12.4", 'source "$HOME/env.sh"'),
        signal_s=300,
    )
    array = Array(slurm.resources({}), ((0,), (1,), (2, 3)), processes=1, parallelism=2)
    target = Target(Path("/r/studies/paper"), Path("/r"), Path("/r/code"), ("gpu7", "gpu9"))
    wanted = parameters(array, slurm, target, "/r/studies/paper:0001.1", ["after:41+10"])
    text = script(array, Path("/r/studies/paper/submissions/0001"), "python", wanted)
    assert text == (Path(__file__).parent / "golden.sbatch").read_text()


@pytest.mark.slurm
def test_arrays_larger_than_the_limits_of_a_real_slurm(cluster: Cluster, target: Target) -> None:
    allowed = limits.read()
    assert allowed.max_array_size == 4
    assert [limit.jobs for limit in allowed.submit_limits(options())] == [20000]
    slurm = options(parallelism=5)
    planned = arrays(20, slurm)
    submission = records.new_submission(target.study)
    check(planned, slurm, target, submission.folder)
    ids = submit(planned, slurm, target, submission)
    assert None not in ids
    assert [len(a.elements) for a in planned] == [4, 4, 4, 4, 4]
    throttle = cluster.run("squeue", "--noheader", "--format=%i").split()
    assert sorted(t.partition("%")[2].rstrip("]") for t in throttle) == ["1"] * 5
    there = queue.query(max_age_s=0)
    found = dict(records.elements(target.study, there))
    assert sorted(line for lines in found.values() for line in lines) == list(range(20))


@pytest.mark.slurm
def test_the_submit_limit_is_read_and_jobs_are_chained(cluster: Cluster, target: Target) -> None:
    cluster.limit_submissions(7)
    assert SubmitLimit(7, qos="normal") in limits.read().submit_limits(options())
    slurm = options()
    planned = arrays(20, slurm)
    ids = submit(planned, slurm, target, records.new_submission(target.study))
    assert None not in ids
    assert len(cluster.jobs()) == 7


@pytest.mark.slurm
def test_only_the_qos_in_use_limits_submissions(cluster: Cluster, target: Target) -> None:
    cluster.account("add", "qos", "debug")
    cluster.account("modify", "qos", "debug", "set", "MaxSubmitJobsPerUser=1")
    cluster.account("modify", "user", "root", "set", "qos+=debug")
    assert [len(a.elements) for a in arrays(6, options())] == [3, 3]
    debug = options(qos="debug")
    planned = arrays(6, debug)
    assert [len(a.elements) for a in planned] == [1]
    assert None not in submit(planned, debug, target, records.new_submission(target.study))
    there = queue.query(max_age_s=0)
    assert [job.qos for job in there.mine] == ["debug"]
    with pytest.raises(NoRoom, match="of qos debug"):
        plan_arrays([Task(0, {})], debug, limits.read(), queued=there.mine)
    cluster.run("scontrol", "update", "partition=short", "qos=debug")
    short = options(partition="short", time_min=2, signal_s=10)
    assert [len(a.elements) for a in arrays(6, short)] == [1]
    cluster.run("scontrol", "update", "partition=short", "qos=")


@pytest.mark.slurm
def test_a_colleagues_jobs_are_seen_and_left_alone(cluster: Cluster, target: Target) -> None:
    cluster.account("add", "user", "nobody", "account=lab", "defaultaccount=lab")
    store = Store(target.results)
    manifest.append(store, "paper", plan(["method=standard,at", "measures=[]"]).jobs)
    submission = records.new_submission(target.study)
    submission.write({"arrays": [{"job_id": None, "elements": [[0], [1]]}]})
    label = records.comment(target.study, submission.name, 0)
    held = ("--hold", "--array=0-1", "--chdir=/tmp", f"--comment={label}", "--wrap=true")
    cluster.run("sbatch", "--uid=nobody", *held)
    there = queue.query(max_age_s=0)
    assert there.mine == []
    assert sorted(line for _, e in records.elements(target.study, there) for line in e) == [0, 1]
    done = tend.cancel(store, "paper", manifest.jobs(store, "paper"))
    assert (done.jobs, done.foreign) == ((), {"nobody": 2})
    assert len(cluster.jobs()) == 2


@pytest.mark.slurm
@pytest.mark.parametrize("state", ["down", "drain", "inactive"])
def test_a_partition_that_starts_nothing(cluster: Cluster, target: Target, state: str) -> None:
    cluster.run("scontrol", "update", "partition=short", f"state={state}")
    try:
        slurm = options(partition="short", time_min=2, signal_s=10)
        allowed = limits.read()
        submission = records.new_submission(target.study)
        if state == "down":
            allowed.check("short", 2, "time_min")
            assert "is DOWN: jobs wait" in str(allowed.warning("short"))
            check(arrays(1, slurm), slurm, target, submission.folder)
        else:
            with pytest.raises(ValueError, match="takes no jobs; partitions that are up: gpu"):
                allowed.check("short", 2, "time_min")
            with pytest.raises(ValueError, match="inactive or drain"):
                check(arrays(1, slurm), slurm, target, submission.folder)
    finally:
        cluster.run("scontrol", "update", "partition=short", "state=up")


@pytest.mark.slurm
def test_what_the_cluster_did_not_take_is_recorded_as_open(
    cluster: Cluster, target: Target
) -> None:
    slurm = options()
    planned = arrays(8, slurm)
    cluster.limit_submissions(4)  # after planning: somebody else uses the account
    submission = records.new_submission(target.study)
    ids = submit(planned, slurm, target, submission)
    assert [i is None for i in ids] == [False, True]
    assert [a["job_id"] is None for a in submission.read()["arrays"]] == [False, True]
    there = queue.query(max_age_s=0)
    lines = [line for _, e in records.elements(target.study, there) for line in e]
    assert sorted(lines) == sorted(planned[0].lines)
    leftovers = [p for p in submission.folder.iterdir() if p.name.startswith(".")]
    assert [p for p in leftovers if not p.is_symlink()] == []


@pytest.mark.slurm
def test_a_job_is_known_by_its_comment_even_if_its_id_was_lost(
    cluster: Cluster, target: Target
) -> None:
    slurm = options()
    submission = records.new_submission(target.study)
    submit(arrays(3, slurm), slurm, target, submission)
    record = submission.read()
    record["arrays"][0]["job_id"] = None  # as after a crash right after sbatch
    submission.write(record)
    there = queue.query(max_age_s=0)
    assert sorted(line for _, e in records.elements(target.study, there) for line in e) == [0, 1, 2]


@pytest.mark.slurm
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"account": "nobody"}, "Invalid account"),
        ({"qos": "best"}, "Invalid qos"),
        ({"gpus": 5}, "node configuration is not available"),
        ({"constraint": "quantum"}, "Invalid feature specification"),
        ({"sbatch": {"no-such-option": 1}}, "unrecognized option"),
        ({"partition": "gpuu"}, "did you mean gpu"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_submitted(
    cluster: Cluster, target: Target, changes: dict[str, Any], message: str
) -> None:
    slurm = options(**changes)
    submission = records.new_submission(target.study)
    with pytest.raises(ValueError, match=message):
        check(arrays(10, slurm), slurm, target, submission.folder)
    assert cluster.jobs() == {}
    assert list(submission.folder.iterdir()) == []


@pytest.mark.slurm
def test_a_job_gets_what_was_asked_for_and_nothing_inherited(
    cluster: Cluster, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_PARTITION", "scavenge")
    monkeypatch.setenv("SLURM_CPU_BIND", "none")
    slurm = options(cpus=3, memory_gb=1.5, time_min=90, constraint="fake", gpus=2)
    ids = submit(arrays(1, slurm), slurm, target, records.new_submission(target.study))
    text = cluster.run("scontrol", "show", "job", "--oneliner", str(ids[0]))
    fields = dict(part.split("=", 1) for part in text.split() if "=" in part)
    assert fields["Partition"] == "gpu"
    assert fields["CPUs/Task"] == "3"
    assert fields["MinMemoryNode"] == "1.50G"
    assert fields["TimeLimit"] == "01:30:00"
    assert fields["Features"] == "fake"
    assert fields["Requeue"] == "1"
    assert fields["TresPerNode"] == "gres:gpu:2"
    assert fields["JobName"] == "paper"


@pytest.mark.slurm
def test_canaries_start_before_the_others(cluster: Cluster, target: Target) -> None:
    slurm = options(canary_min=7)
    ids = submit(arrays(6, slurm), slurm, target, records.new_submission(target.study))
    shown = cluster.run("squeue", "--noheader", "--format=%A %E", "--jobs", f"{ids[1]}")
    assert f"after:{ids[0]}_*+7" in shown or f"after:{ids[0]}+7" in shown
