"""What a plan amounts to: counts, rules, cost, disk and what is missing; as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from sweep.cost import Disk, Hours, disk, hours
from sweep.plan import Plan, Progress, progress
from sweep.slurm.foresee import Foreseen, foresee


@dataclass(frozen=True)
class Preview:
    """A plan with its progress."""

    plan: Plan
    state: Progress
    cost: Hours
    disk: Disk
    arrays: Foreseen | None  # None: the launcher is not Slurm

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        counts = self.state.counts()
        return {
            "study": self.plan.study,
            "models": self.plan.models,
            "trainings": len(self.plan.jobs),
            "axes": self.plan.axes,
            "merged": self.plan.merged,
            "todo": len(self.state.todo),
            "done": counts.get("done", 0),
            "diverged": counts.get("diverged", 0),
            "failed": counts.get("failed", 0) + counts.get("oom", 0),
            "running": counts.get("running", 0),
            "missing": counts.get("missing", 0),
            "gpu_hours": round(self.cost.hours, 3),
            "gpu_hours_from": self.cost.source,
            "files": self.disk.files,
            "bytes": self.disk.bytes,
            "bytes_at_most": self.disk.bytes_at_most,
            "missing_files": list(self.plan.missing_files),
            "results_dir": str(self.plan.store.root),
            "slurm": self.arrays.as_dict() if self.arrays else None,
        }

    def print(self, console: Console) -> None:
        """The same for people; the first line is the count."""
        plan, counts = self.plan, self.state.counts()
        console.print(plan.headline())
        for axis, levels in plan.axes.items():
            console.print(f"  {axis}: {', '.join(map(str, levels))}", markup=False)
        for rule, count in plan.merged.items():
            console.print(f"merged: {count} settings ({rule})")
        console.print("models: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
        console.print(f"to do: {len(self.state.todo)} trainings", end="")
        console.print(f", of which {len(self.state.measure_only)} only to evaluate or measure")
        console.print(
            f"estimated: {self.cost.hours:.3g} GPU-hours ({self.cost.source})", markup=False
        )
        console.print(
            f"on disk: {self.disk.files} files, {_size(self.disk.bytes_at_most)} with the "
            f"checkpoints of trainings, {_size(self.disk.bytes)} once gc has removed them, in "
            f"{plan.store.root}",
            markup=False,
        )
        for problem in plan.missing_files:
            console.print(f"missing: {problem}", markup=False)
        if self.arrays:
            self.arrays.print(console)


def preview(plan: Plan, launcher: Mapping[str, Any] | None = None) -> Preview:
    """Compare a plan with the disk and estimate what is left; with Slurm's options, its arrays.

    Raises:
        ValueError: an option of the launcher is not valid.
    """
    state = progress(plan.jobs, plan.store)
    left = [plan.jobs[i] for i in state.todo if i not in state.measure_only]
    complete = [
        job
        for job in plan.jobs
        if all(state.status[job.model_id(c)] == "done" for c in job.checkpoints)
    ]
    slurm = launcher is not None and launcher.get("kind") == "slurm"
    return Preview(
        plan,
        state,
        hours(left, complete, plan.store),
        disk(plan.jobs),
        foresee(plan, state, launcher) if slurm and launcher is not None else None,
    )


def _size(count: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
