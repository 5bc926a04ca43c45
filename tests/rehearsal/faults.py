"""What goes wrong in the rehearsal, and when: each fault strikes once so many models have a row."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.rehearsal.scene import Scene
from tests.slurm.cluster import full_disk
from tests.slurm.processes import environment


@dataclass(frozen=True)
class Fault:
    """``strike`` does it and says what it did, or None if there was nothing to strike at."""

    at: int
    strike: Callable[[Scene], str | None]

    @property
    def name(self) -> str:
        return self.strike.__name__


def worker_killed(scene: Scene) -> str | None:
    """As the out-of-memory killer does."""
    return _kill_one("sweep.worker", "the worker process")


def jobs_requeued(scene: Scene) -> str | None:
    jobs = scene.jobs("RUNNING")[:2]
    for job in jobs:
        scene.cluster.run("scontrol", "requeue", job, check=False)
    return f"scontrol requeue of {', '.join(jobs)}" if jobs else None


def job_killed(scene: Scene) -> str | None:
    """The process that Slurm started dies; what it had begun is left for the next command."""
    return _kill_one("submitit.core._submit", "the process")


def job_cancelled(scene: Scene) -> str | None:
    for job in scene.jobs("RUNNING")[:1]:
        scene.cluster.run("scancel", job)
        return f"scancel of {job}"
    return None


def node_lost(scene: Scene) -> str | None:
    """A machine dies with everything on it, and is back after a while."""
    cluster = scene.cluster
    running = processes("sweep.worker")
    if not running:
        return None
    node, job = environment(running[0]).get("SLURMD_NODENAME", ""), job_of(running[0])
    cluster.lose_node(node)
    _until(lambda: "down" in cluster.node_state(node), 60)
    cluster.start()
    return f"{node} died with job {job}, and came back"


def controller_killed(scene: Scene) -> str | None:
    pid = int((scene.cluster.state / "run" / "slurmctld.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    time.sleep(20)
    scene.cluster.start()
    return "kill -9 of slurmctld; started again after 20 s"


def disk_full(scene: Scene) -> str | None:
    if not os.path.ismount(scene.results):
        return None
    before = restarts(scene)
    started = time.monotonic()
    with full_disk(scene.results):
        _until(lambda: restarts(scene) != before, 60)
    return f"no byte free for {time.monotonic() - started:.0f} s"


def time_limit(scene: Scene) -> str | None:
    """The limit comes to where the job is already, so that Slurm warns it and then ends it."""
    running = scene.jobs("RUNNING")
    if not running:
        return None
    job = running[0]
    elapsed = scene.cluster.run("squeue", "--noheader", "--format=%M", f"--jobs={job}").strip()
    minutes = int(elapsed.split(":")[-2]) + 1
    scene.cluster.run("scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}")
    _until(lambda: job not in scene.jobs("RUNNING"), 120)
    scene.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=60", check=False)
    return f"{job} reached its time limit"


def preempted(scene: Scene) -> str | None:
    """Somebody with a better claim takes all GPUs for a while."""
    jobs = scene.jobs("RUNNING")
    urgent = ["--partition=gpu", "--nodes=4", "--gres=gpu:2", "--job-name=urgent"]
    script = ["--output=/dev/null", "--wrap=sleep 20"]
    scene.cluster.run("sbatch", "--parsable", *urgent, *script)
    _until(lambda: "urgent" not in scene.cluster.run("squeue", "--noheader", "--format=%j"), 120)
    return f"{', '.join(jobs)} preempted by a job of another partition"


SCHEDULE = (
    Fault(40, worker_killed),
    Fault(90, jobs_requeued),
    Fault(150, job_killed),
    Fault(220, node_lost),
    Fault(300, controller_killed),
    Fault(380, disk_full),
    Fault(460, job_cancelled),
    Fault(540, time_limit),
    Fault(640, preempted),
    Fault(740, worker_killed),
    Fault(840, jobs_requeued),
    Fault(940, disk_full),
    Fault(1040, controller_killed),
    Fault(1140, node_lost),
    Fault(1240, job_killed),
)


def strike_due(scene: Scene) -> None:
    """Strike with the next fault whose time has come, and write it down."""
    log = scene.notes / "faults.jsonl"
    past = log.read_text().splitlines() if log.exists() else []
    if len(past) == len(SCHEDULE):
        return
    fault, models = SCHEDULE[len(past)], scene.models()
    if models < fault.at:
        return
    began = time.time()
    what = fault.strike(scene)
    if what is None and scene.jobs():
        return  # nothing to strike at for the moment
    entry = {"time": began, "models": models, "fault": fault.name, "what": what or "not possible"}
    print(f"  ** at {models} models: {entry['what']}", flush=True)
    while True:
        try:
            with log.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            return
        except OSError:
            time.sleep(1)


def _kill_one(module: str, name: str) -> str | None:
    for pid in processes(module)[:1]:
        job = job_of(pid)  # gone with the process
        os.kill(pid, signal.SIGKILL)
        return f"kill -9 of {name} of job {job}"
    return None


def processes(module: str) -> list[int]:
    """Ids of the rehearsal's Python processes that run a module."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        pid = int(folder.name)
        if module.encode() in words and environment(pid).get("SLURM_JOB_NAME") == "rehearsal":
            found.append(pid)
    return sorted(found)


def job_of(pid: int) -> str:
    there = environment(pid)
    return f"{there.get('SLURM_ARRAY_JOB_ID')}_{there.get('SLURM_ARRAY_TASK_ID')}"


def restarts(scene: Scene) -> dict[str, int]:
    """How often each job has gone back into the queue by itself after an infrastructure fault."""
    folder = scene.study / "submissions"
    found = {}
    for log in folder.glob("*/*_log.out"):
        found[log.name] = log.read_text().count("infrastructure failure")
    return found


def _until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.5)
