"""Leases: one owner at a time, takeover from the dead, and fencing of those who come back."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweep import files, lease


def test_second_taker_gets_nothing_until_release(tmp_path: Path) -> None:
    first = lease.acquire(tmp_path)
    assert first is not None
    with first:
        assert lease.acquire(tmp_path) is None
        first.check()
    second = lease.acquire(tmp_path)
    assert second is not None
    assert second.number == 2


def _try(directory: Path, barrier: object, queue: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    held = lease.acquire(directory)
    queue.put(None if held is None else held.number)  # type: ignore[attr-defined]
    time.sleep(0.5)  # alive while the others try


def test_of_many_at_the_same_moment_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, queue = context.Barrier(8), context.Queue()
    takers = [context.Process(target=_try, args=(tmp_path, barrier, queue)) for _ in range(8)]
    for taker in takers:
        taker.start()
    results = [queue.get(timeout=20) for _ in takers]
    for taker in takers:
        taker.join()
    assert sorted(r for r in results if r is not None) == [1]


@pytest.mark.parametrize("slurm_job", [None, "7"])
def test_a_killed_owner_on_this_machine_is_replaced_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slurm_job: str | None
) -> None:
    if slurm_job is not None:  # both are workers of one Slurm job, in the same start of it
        monkeypatch.setenv("SLURM_JOB_ID", slurm_job)
    code = (
        "import time, pathlib, sweep.lease as lease\n"
        f"with lease.acquire(pathlib.Path({str(tmp_path)!r})):\n"
        "    print(flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert lease.acquire(tmp_path) is None
    process.kill()
    process.wait()
    second = lease.acquire(tmp_path)
    assert second is not None
    assert second.number == 2


def test_a_silent_owner_elsewhere_is_replaced_and_then_fenced(tmp_path: Path) -> None:
    first = lease.acquire(tmp_path)
    assert first is not None
    path = tmp_path / "attempts" / "000001.json"
    content = json.loads(path.read_text())
    content["owner"]["host"] = "another-machine"
    path.write_text(json.dumps(content))
    assert lease.acquire(tmp_path) is None, "it may live: its heartbeat is fresh"
    os.utime(path, (0, time.time() - lease.STALE_S - 1))
    second = lease.acquire(tmp_path)
    assert second is not None
    with pytest.raises(lease.LeaseLost, match="attempt 2 has taken over"):
        first.check()
    target = tmp_path / "row.json"
    with pytest.raises(lease.LeaseLost):
        files.write_json(target, {"late": True}, before_commit=first.check)
    assert not target.exists()
    files.write_json(target, {"late": False}, before_commit=second.check)
    assert {"attempts", "row.json"} == set(os.listdir(tmp_path))


@pytest.mark.parametrize("torn", ["", '{"owner": {"host'])
def test_a_torn_attempt_is_judged_by_its_age(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "attempts" / "000001.json"
    path.parent.mkdir()
    path.write_text(torn)
    assert lease.acquire(tmp_path) is None, "whoever it was may still be there"
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    taken = lease.acquire(tmp_path)
    assert taken is not None
    assert taken.number == 2


def test_a_requeued_slurm_job_takes_over_from_its_earlier_self(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert lease.acquire(tmp_path) is not None
    path = tmp_path / "attempts" / "000001.json"
    content = json.loads(path.read_text())
    content["owner"]["host"] = "another-node"
    path.write_text(json.dumps(content))
    assert lease.acquire(tmp_path) is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert lease.acquire(tmp_path) is not None


def test_heartbeat_keeps_a_lease_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    held = lease.acquire(tmp_path)
    assert held is not None
    with held:
        path = tmp_path / "attempts" / "000001.json"
        os.utime(path, (0, 0))
        deadline = time.time() + 10
        while path.stat().st_mtime == 0:
            assert time.time() < deadline
            time.sleep(0.02)
