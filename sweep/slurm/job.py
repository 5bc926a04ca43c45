"""What runs inside a Slurm job: some lines of a manifest, to the end or to the next requeue.

submitit's pickle holds a ``RunLines`` and line numbers, nothing else: what a task is stands in
the manifest, how far it has come stands in its training's folder.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from submitit.helpers import DelayedSubmission

from sweep import files
from sweep.pool import Event, Pool
from sweep.slurm import client
from sweep.slurm.infrastructure import Fault, Strikes, accelerator_problem, classify
from sweep.slurm.records import Submission
from sweep.store import FINAL, Store, read_manifest, with_earlier_models

MAX_STRIKES = 10  # requeues of one job after infrastructure failures; each waits longer
MAX_WITHOUT_PROGRESS = 3  # requeues in a row that saved nothing
_PATIENCE_S = (1.0, 2.0, 4.0, 8.0)

Task = dict[str, Any]  # a line of the manifest


class TrainingsFailed(RuntimeError):
    """Makes the process exit non-zero, so that Slurm says FAILED as the rows do."""


@dataclass(frozen=True)
class RunLines:
    """The function of a Slurm job: ``RunLines(...)(lines)``; fields as in ``SlurmOptions``."""

    study: Path  # the study's folder
    results: Path
    submission: str
    processes: int
    retries: int
    halt_after: int
    exclude_after: int
    uses_gpu: bool

    def __call__(self, lines: list[int]) -> dict[str, int]:
        """Run the lines; returns how many ended how.

        Raises:
            TrainingsFailed: some training crashed, diverged or ran out of memory.
            SystemExit: stopped by a signal or requeued.
        """
        say(
            f"job {job_id()} on {node()}, start {restarts() + 1}: lines "
            f"{', '.join(map(str, lines))} of {self.study / 'manifest.jsonl'}"
        )
        submission = Submission(self.study, self.submission)
        if halted := submission.halted():
            raise TrainingsFailed(f"not begun, the study was halted: {halted}")
        jobs = self._read(lines)
        if self.uses_gpu and any(job["runtime"]["device"] != "cpu" for job in jobs.values()):
            problem = accelerator_problem()
            if problem:
                self._requeue_after_fault("node", problem)
        saved = self._progress(jobs)
        before = {
            n: end
            for n, end in submission.ended(job_id()).items()
            if all(path.exists() for path in self._rows(jobs[n]))
        }
        # a requeued job neither repeats what has ended nor begins with what crashes each time
        todo = [n for n in lines if before.get(n, {}).get("outcome") not in FINAL]
        todo.sort(key=lambda n: n in before)
        ends = {n: before[n] for n in lines if n not in todo}
        ends |= self._run(todo, jobs, lambda ended: submission.remember(job_id(), before | ended))
        failed = {n: e for n, e in ends.items() if e["outcome"] not in ("done", "running")}
        for end in failed.values():
            fault = self._fault(end)
            if fault:
                self._requeue_after_fault(fault, end["reason"] or "")
        if stopped := [n for n in lines if n not in ends or ends[n]["outcome"] == "interrupted"]:
            self._leave(stopped, saved == self._progress(jobs))
        counts = Counter(str(end["outcome"]) for end in ends.values())
        if failed:
            self._report(failed, submission)
            raise TrainingsFailed(
                f"{len(failed)} of {len(lines)} trainings did not end well: "
                + "; ".join(f"line {n}: {e['outcome']}, {e['reason']}" for n, e in failed.items())
            )
        return dict(counts)

    def checkpoint(self, lines: list[int]) -> DelayedSubmission:
        """submitit asks for this if the signal comes before a task listens: simply start again."""
        return DelayedSubmission(self, lines)

    def _read(self, lines: list[int]) -> dict[int, Task]:
        """The lines of the manifest as plain data: typed jobs, and torch, are for the workers."""
        wanted = set(lines)
        path = self.study / "manifest.jsonl"
        tasks = with_earlier_models(read_manifest(path))  # as in ``manifest.job``
        found = {n: task for n, task in enumerate(tasks) if n in wanted}
        if missing := wanted - found.keys():
            raise ValueError(f"{path} has no lines {sorted(missing)}")
        return found

    def _run(
        self,
        lines: list[int],
        jobs: dict[int, Task],
        remember: Callable[[dict[int, Event]], None],
    ) -> dict[int, Event]:
        """Run the lines, and those that crashed again, up to ``retries`` times.

        ``remember`` is told after each end what has ended so far.
        """
        ends: dict[int, Event] = {}

        def on_event(event: Event) -> None:
            if event["event"] == "ready":
                say(f"worker ready after {event['seconds']} s")
            elif event["event"] == "end":
                took = f" after {event['seconds']} s" if "seconds" in event else ""
                say(f"line {event['task']}: {event['outcome']}{took} {event['reason'] or ''}")
                ends[event["task"]] = event
                remember(ends)

        todo = lines
        for attempt in range(self.retries + 1):
            if attempt:
                say(f"retry {attempt} of {self.retries}: lines {', '.join(map(str, todo))}")
            pool = Pool(
                self.study / "manifest.jsonl",
                self.results,
                min(self.processes, len(todo)),
                on_event,
                max(job["runtime"]["torch_threads"] for job in jobs.values()),
            )
            pool.run(todo)
            todo = [
                line
                for line in todo
                if ends.get(line, {}).get("outcome") in ("failed", "died")
                and self._fault(ends[line]) is None
            ]
            if pool.stopped or not todo:
                break
        return ends

    def _fault(self, end: Event) -> Fault | None:
        if end["outcome"] not in ("failed", "died"):
            return None
        return classify(end["reason"], self.results)

    def _progress(self, jobs: dict[int, Task]) -> dict[str, int]:
        """Times of what the trainings have saved: unequal after any progress."""
        store = Store(self.results)
        times: dict[str, int] = {}
        for job in jobs.values():
            saved = [store.training(job["training_id"]) / "checkpoint.pt", *self._rows(job)]
            times |= {str(p): p.stat().st_mtime_ns for p in saved if p.exists()}
        return times

    def _rows(self, job: Task) -> list[Path]:
        store = Store(self.results)
        return [store.model(f"{job['training_id']}-{c}") / "row.json" for c in job["checkpoints"]]

    def _leave(self, stopped: list[int], nothing_saved: bool) -> NoReturn:
        """A signal came and everything is saved: requeue, unless Slurm is ending the job itself.

        After scancel the job is cancelled, after ``scontrol requeue`` it is pending again: both
        are Slurm's business. A job that is still running was told that its time is up, or that
        it is being preempted: then it is on us to come back.
        """
        state = job_state()
        say(f"stopped at a checkpoint, {len(stopped)} lines to go on with; Slurm says {state}")
        if state != "RUNNING":
            sys.exit(1)
        mark = self.study / "submissions" / self.submission / f"{job_id()}-no-progress.json"
        idle = ((files.read_json(mark) or 0) + 1) if nothing_saved else 0
        if idle >= MAX_WITHOUT_PROGRESS:
            raise TrainingsFailed(
                f"started {idle} times without reaching a checkpoint: the time limit is too short "
                "for the set-up and one step; raise hydra.launcher.time_min"
            )
        with suppress(OSError):  # a full disk: then this start is not counted
            if nothing_saved:
                files.write_json(mark, idle)
            else:
                mark.unlink(missing_ok=True)
        requeue()

    def _requeue_after_fault(self, fault: Fault, reason: str) -> NoReturn:
        strikes = Strikes(self.study)
        counted = strikes.add(fault, node(), job_id(), reason)
        count = strikes.of_job(job_id())
        which = str(count) if counted else f"beside {count} that could be written down"
        say(f"infrastructure failure {which} of this job ({fault}, {node()}): {reason}")
        if count > MAX_STRIKES:
            raise TrainingsFailed(f"gave up after {count} infrastructure failures: {reason}")
        bad = strikes.bad_nodes(self.exclude_after)
        requeue(exclude=bad, delay_min=0 if fault == "node" else min(60, 2 ** min(count, 6)))

    def _report(self, failed: dict[int, Event], submission: Submission) -> None:
        """Write down what died without doing so itself; halt the study after equal failures."""
        from sweep import manifest, task  # with torch, for which nobody has waited so far

        for line, end in failed.items():
            if end["outcome"] == "died":
                job = manifest.job(self.study / "manifest.jsonl", line)
                task.record_death(job, Store(self.results), end["reason"])
            if end["outcome"] in ("failed", "died"):
                submission.add_failure(line, end["reason"] or "")
        common = submission.common_failure(self.halt_after)
        if common and not submission.halted():
            submission.halt(f"{self.halt_after} trainings failed with the same error: {common}")
            say(f"halting the study: {submission.halted()}")
            client.run(
                ["scancel", "--state=PENDING", *submission.array_ids()], patience_s=_PATIENCE_S
            )


def job_id() -> str:
    """This job as Slurm's commands must name it.

    An element of an array also has a number of its own, but the last one's is the number of the
    whole array: requeueing by number would requeue all of it.
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def node() -> str:
    """Slurm's name of this node."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def restarts() -> int:
    """How often Slurm has requeued this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)


def job_state() -> str:
    """What Slurm says of this job: RUNNING, CANCELLED, PENDING ..., or ``unknown``."""
    try:
        text = client.run(
            ["scontrol", "show", "job", "--oneliner", job_id()], patience_s=_PATIENCE_S
        )
    except client.SlurmError as error:
        return f"unknown ({error})"
    fields: dict[str, Any] = dict(p.split("=", 1) for p in text.split() if "=" in p)
    return str(fields.get("JobState", "unknown"))


def requeue(*, exclude: list[str] | None = None, delay_min: int = 0) -> NoReturn:
    """Put this job back into the queue and exit."""
    # Slurm ends the old run at once; scontrol inherits this and can still finish what it does
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        client.run(["scontrol", "requeue", job_id()], patience_s=_PATIENCE_S)
        changes = [f"ExcNodeList={','.join(exclude)}"] if exclude else []
        changes += [f"StartTime=now+{delay_min}minutes"] if delay_min else []
        if changes:
            client.run(
                ["scontrol", "update", f"JobId={job_id()}", *changes], patience_s=_PATIENCE_S
            )
    except client.SlurmError as error:
        say(f"requeueing failed ({error}); the same command goes on where this ended")
        sys.exit(1)
    say("requeued")
    sys.exit(1)


def say(text: str) -> None:
    """One line in the job's own log. On a full disk it is lost: what is done counts for more."""
    with suppress(OSError):
        print(f"{time.strftime('%F %T')} {text}", flush=True)  # noqa: T201 - the log is stdout
