"""Hand a plan to machines: to workers here, to Slurm, or to another launcher of Hydra."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from sweep import manifest, task
from sweep.console import console, follow, show_failures
from sweep.convert import to_dataclass
from sweep.estimate import relative_cost
from sweep.plan import Plan, Progress, is_trained, progress
from sweep.pool import Pool
from sweep.setting import Job
from sweep.store import FINAL, STATUSES, Store
from sweep.todo import nothing, select


@dataclass(frozen=True, kw_only=True)
class LocalOptions:
    """Options of ``hydra/launcher=local``. ``processes``: None: one per GPU, else one per core."""

    kind: Literal["local"] = "local"
    processes: int | None = None

    def __post_init__(self) -> None:
        if self.processes is not None and self.processes < 1:
            raise ValueError(f"hydra.launcher.processes={self.processes} must be at least 1")


def require_files(plan: Plan) -> None:
    """Refuse to submit what could only fail. Raises ``ValueError`` with what is missing."""
    if plan.missing_files:
        first, more = plan.missing_files[:3], len(plan.missing_files) - 3
        rest = f"; and {more} more, which `python -m sweep plan` lists" if more > 0 else ""
        raise ValueError("; ".join(first) + rest)


def run_local(plan: Plan, options: Mapping[str, Any]) -> int:
    """Run what is left of a plan in worker processes here and wait; returns the exit status."""
    local = to_dataclass(LocalOptions, options, "hydra.launcher")
    require_files(plan)
    plan.store.check_writable()
    numbers = manifest.append(plan.store, plan.study, plan.jobs)
    state = progress(plan.jobs, plan.store)
    selected = select(plan, state)
    announce(plan, state, selected)
    if not selected:
        return 0
    task.prepare([plan.jobs[i] for i in selected], plan.store)
    chosen = {numbers[i]: plan.jobs[i] for i in selected}
    return run_here(plan.store, plan.study, chosen, local.processes)


def run_here(
    store: Store, study: str, jobs: Mapping[int, Job], processes: int | None = None
) -> int:
    """Run lines of a study's manifest in worker processes here and wait; returns the exit status.

    ``processes``: None: one per GPU, or one per core (or per ``torch_threads`` cores) without one.
    """
    cost = {n: relative_cost(j, measures_only=is_trained(j, store)) for n, j in jobs.items()}
    lines = sorted(jobs, key=cost.__getitem__, reverse=True)  # no long task last
    threads = max(job.runtime.torch_threads for job in jobs.values())
    gpus = _gpus(jobs.values())
    started = time.monotonic()
    with follow(study, jobs, cost) as on_event:
        pool = Pool(
            store.study(study) / "manifest.jsonl",
            store.root,
            min(processes or len(gpus) or max(1, (os.cpu_count() or 1) // threads), len(jobs)),
            on_event,
            threads,
            gpus,
        )
        ends = pool.run(lines)
    for end in ends:
        if end["outcome"] == "died":
            task.record_death(jobs[end["task"]], store, end["reason"])
    bad = [e for e in ends if e["outcome"] not in ("done", "running")]
    elsewhere = sum(end["outcome"] == "running" for end in ends)
    done = len(ends) - len(bad) - elsewhere
    console.print(f"{done} trainings done in {time.monotonic() - started:.0f} s")
    if elsewhere:
        console.print(f"{elsewhere} left alone: somebody else is working on them")
    if bad:
        show_failures(bad, jobs, store)
    if pool.stopped:
        console.print("stopped: the same command goes on where this one ended")
        return 130
    return 1 if bad else 0


def _gpus(jobs: Iterable[Job]) -> list[str]:
    """The GPUs that the jobs may use here, as CUDA_VISIBLE_DEVICES names them."""
    devices = {task.resolve_device(device) for device in {job.runtime.device for job in jobs}}
    if not any(device.type == "cuda" for device in devices):
        return []
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (visible.split(",") if visible else [str(i) for i in range(count)])[:count]


def run_elsewhere(plan: Plan, launch: Any) -> int:
    """Give each training to another launcher of Hydra, as one override list that runs it all."""
    require_files(plan)
    plan.store.check_writable()
    manifest.append(plan.store, plan.study, plan.jobs)
    state = progress(plan.jobs, plan.store)
    selected = select(plan, state)
    announce(plan, state, selected)
    if selected:
        task.prepare([plan.jobs[i] for i in selected], plan.store)
        launch([list(plan.overrides[i]) for i in selected])
    after = progress(plan.jobs, plan.store).counts()
    return 0 if sum(after.get(s, 0) for s in FINAL) == plan.models else 1


def announce(plan: Plan, state: Progress, selected: Sequence[int], queued: int = 0) -> None:
    """Say what there is, what is there already, and what is going to be done.

    ``queued``: tasks of the study in Slurm's queue.
    """
    console.print(f"study [bold]{plan.study}[/bold]: {plan.headline()}")
    for rule, count in plan.merged.items():
        console.print(f"  {count} settings merged: {rule}")
    counts = state.counts()
    console.print("  " + ", ".join(f"{counts[s]} {s}" for s in STATUSES if s in counts))
    if not selected:
        console.print(nothing(plan, state, queued))
        return
    measuring = sum(i in state.measure_only for i in selected)
    training = len(selected) - measuring
    parts = [f"{training} to train"] * bool(training) + [f"{measuring} to measure"] * bool(
        measuring
    )
    console.print(f"running {' and '.join(parts)}")
