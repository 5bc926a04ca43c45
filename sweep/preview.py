"""What a plan amounts to: counts, rules, cost, disk and what is missing; as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console

from sweep.estimate import ASSUMED_FLOPS, arithmetic, gpu_seconds
from sweep.plan import Plan, Progress, progress

FILES_PER_TRAINING = 9
FILES_PER_MODEL = 2


@dataclass(frozen=True)
class Preview:
    """A plan with its progress."""

    plan: Plan
    state: Progress
    gpu_hours: float
    hours_from: str

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
            "gpu_hours": round(self.gpu_hours, 3),
            "gpu_hours_from": self.hours_from,
            "files": self.files(),
            "missing_files": list(self.plan.missing_files),
            "results_dir": str(self.plan.store.root),
        }

    def files(self) -> int:
        """Number of files that the study will have on disk."""
        return len(self.plan.jobs) * FILES_PER_TRAINING + self.plan.models * FILES_PER_MODEL

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
        console.print(f"estimated: {self.gpu_hours:.3g} GPU-hours ({self.hours_from})")
        console.print(f"on disk: {self.files()} files in {plan.store.root}", markup=False)
        for problem in plan.missing_files:
            console.print(f"missing: {problem}", markup=False)


def preview(plan: Plan) -> Preview:
    """Compare a plan with the disk and estimate what is left."""
    state = progress(plan.jobs, plan.store)
    training = [plan.jobs[i] for i in state.todo if i not in state.measure_only]
    kinds = sorted({kind for job in training for kind in arithmetic(job.spec.recipe)})
    speeds = ", ".join(f"{ASSUMED_FLOPS[kind] / 1e12:g} TFLOP/s in {kind}" for kind in kinds)
    return Preview(
        plan,
        state,
        sum(map(gpu_seconds, training)) / 3600,
        f"training steps alone; counted FLOPs at what one A100 is assumed to sustain: {speeds}"
        if training
        else "nothing to train",
    )
