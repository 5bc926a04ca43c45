"""Which jobs of a plan are to be run now."""

from __future__ import annotations

from sweep.plan import Plan, Progress
from sweep.schema import Resume
from sweep.store import FINAL, STATUSES, Status

# By ``resume``: the statuses of models that are run.
RESUMED: dict[Resume, frozenset[Status]] = {
    "all": frozenset(STATUSES) - frozenset(FINAL),
    "failed": frozenset({"failed", "oom"}),
    "missing": frozenset({"missing"}),
}


def select(plan: Plan, state: Progress) -> list[int]:
    """Indices of the plan's jobs to run now, by ``resume=all|failed|missing``."""
    wanted = RESUMED[plan.config["resume"]]
    return [
        index
        for index in state.todo
        if any(
            state.status[plan.jobs[index].model_id(c)] in wanted
            for c in plan.jobs[index].checkpoints
        )
    ]


def nothing(plan: Plan, state: Progress, queued: int = 0) -> str:
    """Why no job is to be run now: what the models are, and what would run those that could be.

    ``queued``: tasks of the study that wait or run in Slurm's queue.
    """
    counts = state.counts()
    left = {status: counts[status] for status in STATUSES if counts.get(status, 0)}
    done = left.pop("done", 0)
    if not left:
        return "nothing to do: everything is there already"
    parts = [f"{done} done"] * bool(done)
    for status, count in left.items():
        part = f"{count} {status}"
        others = [name for name, wanted in RESUMED.items() if status in wanted]
        if status in FINAL:
            part += " (the same would come out again)"
        elif status != "running" and plan.config["resume"] not in others:
            part += f" (resume={others[-1]} runs them)"
        parts.append(part)
    if queued:
        parts.append(f"{queued} tasks in the queue")
    verb = "do" if set(left) <= set(FINAL) else "submit"
    return f"nothing to {verb}: {', '.join(parts)}"
