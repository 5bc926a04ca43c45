"""Slurm's commands: what they inherit, and what their errors mean. Fakes on PATH, no mocks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sweep.slurm import client, limits, queue


def command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder at the head of PATH, and a cache of its own."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_an_enclosing_job_leaves_nothing_but_the_cluster(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_CPU_BIND", "SBATCH_PARTITION", "PMIX_RANK", "SLURM_MEM_PER_NODE"):
        monkeypatch.setenv(name, "inherited")
    monkeypatch.setenv("SLURM_CONF", "/somewhere/slurm.conf")
    command(programs, "sbatch", "env")
    seen = client.run(["sbatch"])
    assert "inherited" not in seen
    assert "SLURM_CONF=/somewhere/slurm.conf" in seen
    with client.cleaned():
        assert "SLURM_CPU_BIND" not in os.environ
    assert os.environ["SLURM_CPU_BIND"] == "inherited"


def test_a_busy_controller_is_asked_again(programs: Path) -> None:
    script = f"""
echo x >> {programs}/calls
[ $(wc -l < {programs}/calls) -ge 3 ] && echo answer && exit 0
echo "slurm_load_jobs error: Socket timed out on send/recv operation" >&2; exit 1"""
    command(programs, "squeue", script)
    with pytest.raises(client.SlurmBusy):
        client.run(["squeue"])
    assert client.run(["squeue"], patience_s=(0.0, 0.0)) == "answer\n"


def test_a_refusal_is_not_asked_again(programs: Path) -> None:
    script = f"echo x >> {programs}/calls; echo 'Invalid partition name specified' >&2; exit 1"
    command(programs, "sbatch", script)
    with pytest.raises(client.SlurmError, match="Invalid partition"):
        client.run(["sbatch"], patience_s=(0.0, 0.0))
    assert (programs / "calls").read_text() == "x\n"


def test_no_slurm_is_said_in_one_sentence(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(ValueError, match="no Slurm on this machine"):
        client.require()


def test_an_unanswered_query_is_unknown_and_empty_of_claims(programs: Path) -> None:
    command(programs, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    asked = queue.query(patience_s=())
    assert not asked.known
    assert asked.problem is not None
    assert "Unable to contact" in asked.problem
    assert asked.jobs == ()


def test_output_that_is_not_understood_is_unknown_too(programs: Path) -> None:
    command(programs, "squeue", "echo 'something | else'")
    assert not queue.query(patience_s=()).known


def test_a_comment_of_several_lines_hides_nobody(programs: Path) -> None:
    jobs = [f"{n}|PENDING|alice|lab|normal|gpu|None|/r/studies/demo:0001.0" for n in (7, 9)]
    text = [jobs[0], "8|RUNNING|bob|lab|normal|gpu|None|first line", "second", "|", jobs[1]]
    (programs / "text").write_text("\n".join(text))
    command(programs, "squeue", f"/bin/cat {programs}/text")
    assert [job.job_id for job in queue.query(patience_s=()).jobs] == ["7", "9"]


def test_one_query_serves_everybody_for_a_while(programs: Path) -> None:
    line = "7_2|RUNNING|alice|lab|normal|gpu|None|/r/studies/demo:0001.0"
    command(programs, "squeue", f"echo x >> {programs}/calls; echo '{line}'")
    first, second = queue.query(), queue.query()
    assert first.jobs == second.jobs
    assert second.jobs[0].comment == "/r/studies/demo:0001.0"
    assert (programs / "calls").read_text() == "x\n"
    queue.query(max_age_s=0)
    assert (programs / "calls").read_text() == "x\nx\n"


def test_minutes_of_slurm() -> None:
    texts = {
        "1-00:00:00": 1440,
        "30:00": 30,
        "2:30:00": 150,
        "UNLIMITED": None,
        "7-12:00:30": 10800,
    }
    assert {t: limits.parse_minutes(t) for t in texts} == texts
    assert limits.parse_minutes("UNLIMITED") is None


def test_colleagues_jobs_are_seen_where_they_are_a_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "me")
    text = """\
7_2|RUNNING|alice|lab|normal|gpu|None|/r/studies/demo:0001.0
8_[1-9]|PENDING|alice|lab|normal|gpu|Resources|other
9|PENDING|alice|lab|normal|gpu|Resources|(null)
10|PENDING|me|lab|normal|gpu|Resources|(null)
"""
    there = queue.Queue(known=True, jobs=queue.parse(text))
    assert [job.job_id for job in there.jobs] == ["7_2", "10"]
    assert [job.job_id for job in there.mine] == ["10"]
    assert list(there.of("/r/studies/demo:")) == ["7_2"]


def test_impossible_times_are_refused_with_the_limit() -> None:
    partitions = limits.parse_partitions(
        "PartitionName=gpu Default=YES MaxTime=1-00:00:00 State=UP\n"
        "PartitionName=long Default=NO MaxTime=UNLIMITED State=UP\n"
    )
    allowed = limits.Limits(1001, None, partitions)
    allowed.check(None, 1440, "time_min")
    allowed.check("gpu,long", 5000, "time_min")
    with pytest.raises(ValueError, match=r"above the limit of partition gpu \(1440 minutes\)"):
        allowed.check(None, 1441, "time_min")
    with pytest.raises(ValueError, match="did you mean long"):
        allowed.check("lonng", 10, "time_min")


def test_a_partition_that_starts_nothing_is_refused_or_warned_of() -> None:
    states = {"gpu": "UP", "down": "DOWN", "drain": "DRAIN", "off": "INACTIVE"}
    lines = [f"PartitionName={name} State={state} QoS=N/A" for name, state in states.items()]
    allowed = limits.Limits(1001, None, limits.parse_partitions("\n".join(lines)))
    for name in ("drain", "off", "drain,off"):
        with pytest.raises(ValueError, match="takes no jobs; partitions that are up: gpu"):
            allowed.check(name, 10, "time_min")
    for name in ("gpu", "drain,gpu", "down,gpu"):
        allowed.check(name, 10, "time_min")
        assert allowed.warning(name) is None
    allowed.check("down", 10, "time_min")
    warning = allowed.warning("down")
    assert warning is not None
    assert "partition down is DOWN: jobs wait" in warning


def test_only_jobs_held_after_a_failed_launch_are_ours_to_release() -> None:
    text = "".join(
        f"{i}|{state}|me|lab|normal|gpu|{reason}|/r/studies/demo:0001.0\n"
        for i, (state, reason) in enumerate(
            [
                ("PENDING", "launch failed requeued held"),
                ("PENDING", "JobHeldUser"),
                ("PENDING", "JobHeldAdmin"),
                ("RUNNING", "None"),
            ]
        )
    )
    assert [job.held for job in queue.parse(text)] == [True, False, False, False]
