"""What tests do to the cluster: look, wait, and break things."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.slurm.processes import environment, kill, parent, state

PROJECT = Path(__file__).parents[2]


@dataclass
class Cluster:
    """A running one-machine Slurm. ``state``: its folder; ``environment``: what started it."""

    state: Path
    environment: dict[str, str]
    requeued: dict[str, float] = field(default_factory=dict)  # job -> when it was first seen so

    def run(self, *command: str, check: bool = True) -> str:
        """Standard output of a Slurm command."""
        environment = self.environment | {"SLURM_CONF": str(self.state / "slurm.conf")}
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert not check or result.returncode == 0, result.stderr
        return result.stdout

    def start(self) -> None:
        """Start what has died."""
        script = PROJECT / ".ci/slurm/start.sh"
        subprocess.run([script], env=self.environment, check=True, timeout=120, capture_output=True)

    def reset(self) -> None:
        """An empty queue, no submit limit, all nodes up."""
        self.limit_submissions(-1)
        self.start()
        self.wait(self.emptied, "the queue to empty")

    def emptied(self) -> bool:
        """Cancel everything; a job that is just being requeued survives the first time."""
        if jobs := self.jobs():
            self.run("scancel", *jobs, check=False)
        return not self.jobs()

    def limit_submissions(self, jobs: int) -> None:
        """Limit a user's jobs in the queue; -1: no limit."""
        self.account("modify", "qos", "normal", "set", f"MaxSubmitJobsPerUser={jobs}")
        wanted = "" if jobs < 0 else str(jobs)
        show = ["sacctmgr", "--noheader", "--parsable2", "show", "qos", "normal"]
        assert self.run(*show, "format=MaxSubmitPU").strip() == wanted

    def account(self, *change: str) -> None:
        """Change something in the accounting; that it is so already is no error."""
        self.run("sacctmgr", "--immediate", "--quiet", *change, check=False)

    def jobs(self, fields: str = "%i %T") -> dict[str, str]:
        """State of each job in the queue, elements of arrays one by one."""
        lines = self.run("squeue", "--noheader", "--array", f"--format={fields}").splitlines()
        return dict(line.split(maxsplit=1) for line in lines)

    def ended(self, array: str) -> dict[str, str]:
        """Slurm's final word on each element of an array, from its accounting, which lags."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            text = self.run("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", array)
            states = dict(line.split("|", 1) for line in text.splitlines())
            if states and not {"RUNNING", "PENDING", "REQUEUED"} & set(states.values()):
                return states
            time.sleep(0.5)
        raise AssertionError(f"accounting has not caught up: {states}")

    def history(self, job: str) -> list[str]:
        """How each start of a job ended, in order, by Slurm's accounting."""
        self.ended(job)
        show = ["sacct", "-X", "-n", "-P", "--duplicates", "--format=Start,State", "-j", job]
        return [line.split("|")[1].split()[0] for line in sorted(self.run(*show).splitlines())]

    def hurry(self) -> None:
        """Let requeued jobs begin soon: Slurm makes them wait for two minutes.

        It does so because a node that has just ended a job refuses it for a while ("Job credential
        revoked"), which ends the job for good: within the same second, with these settings.
        """
        jobs, now = self.jobs("%i %T/%r"), time.monotonic()
        requeued = [job for job, reason in jobs.items() if reason == "PENDING/BeginTime"]
        self.requeued = {job: self.requeued.get(job, now) for job in requeued}
        for job, since in self.requeued.items():
            if now - since > 2:
                self.run("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)

    def wait(
        self,
        condition: Callable[[], object],
        what: str,
        *,
        seconds: float = 60,
        hurry: bool = True,
    ) -> None:
        """Wait until ``condition`` holds, hurrying what Slurm delays."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}: {self.jobs()}"
            if hurry:
                self.hurry()
            time.sleep(0.3)

    def drain(self, *, seconds: float = 120) -> None:
        """Wait until nothing is in the queue."""
        self.wait(lambda: not self.jobs(), "the queue to drain", seconds=seconds)

    def slurmd(self, node: str) -> int:
        """Process id of a node's daemon."""
        return int((self.state / "run" / f"{node}.pid").read_text())

    def lose_node(self, node: str) -> None:
        """A machine dies with all of its processes, those first that would tell of the others."""
        ours = str(self.state / "slurm.conf")
        running = []
        for folder in Path("/proc").glob("[0-9]*"):
            there = environment(int(folder.name))
            if there.get("SLURMD_NODENAME") == node and there.get("SLURM_CONF") == ours:
                running.append(int(folder.name))
        steps = {parent(pid) for pid in running} - {0, 1, *running}  # Slurm's own, one for each
        for pid in (self.slurmd(node), *steps, *running):
            kill(pid)

    def restart_controller(self) -> None:
        """A new slurmctld. One that has requeued many jobs (22.05) may go on counting some of them
        against limits of submitted jobs after they have left.
        """
        pid = int((self.state / "run" / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        while Path(f"/proc/{pid}").exists() and state(pid) != "Z":
            time.sleep(0.1)
        self.start()

    def node_state(self, node: str) -> str:
        """What Slurm thinks of a node: idle, mixed, down* ..."""
        return self.run("sinfo", "--noheader", "--partition=gpu", f"--nodes={node}", "--format=%T")


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """The file system that ``folder`` is on has no byte left meanwhile."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            for block in (b"\0" * 2**20, b"\0" * 2**12):
                with suppress(OSError):
                    while file.write(block) == len(block):
                        pass
        yield
    finally:
        filler.unlink()
