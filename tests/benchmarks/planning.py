"""Planning 1,344 models: against Hydra's own sweeper, which composes job by job; and its growth.

Then the same study with all its rows on disk: ``status`` reads every one of them. The rows are
stand-ins whose values nobody looks at; their definitions are those that the study asks for.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from sweep import compose, manifest, steps
from sweep.plan import Plan, plan, progress
from sweep.setting import model_axes
from sweep.status import study_status
from sweep.store import new_row

SAMPLE = 40  # jobs that the stock way composes here; the rest would take as long each


@dataclass(frozen=True)
class Times:
    """Seconds to plan; to compare a plan with rows that are all there; for ``status`` to read."""

    models: int
    plan: float
    compare: float
    status: float


def ours(overrides: list[str]) -> Times:
    with tempfile.TemporaryDirectory() as root:
        started = time.perf_counter()
        planned = plan([*overrides, f"results_dir={root}"])
        planning = time.perf_counter() - started
        finish(planned)
        started = time.perf_counter()
        state = progress(planned.jobs, planned.store)
        comparing = time.perf_counter() - started
        assert state.counts() == {"done": planned.models}
        started = time.perf_counter()
        status = study_status(planned.store, planned.study)
        asking = time.perf_counter() - started
        assert status.counts == {"done": planned.models}
        return Times(planned.models, planning, comparing, asking)


def finish(planned: Plan) -> None:
    """Put down what a finished study has: its manifest, the trainings' states, the models' rows."""
    store = planned.store
    manifest.append(store, planned.study, planned.jobs)
    for job in planned.jobs:
        wanted = {
            "metrics": steps.metric_definitions(job.evaluation, job.spec.threat),
            "measures": steps.measure_definitions(job.measuring, job.spec.threat, job.train_size),
        }
        write(store.training(job.training_id) / "state.json", {"status": "done"})
        for checkpoint in job.checkpoints:
            row = new_row(
                model_id=job.model_id(checkpoint),
                training_id=job.training_id,
                checkpoint=checkpoint,
                num_classes=10,
                axes=model_axes(job.spec, checkpoint),
            )
            for kind, definitions in wanted.items():
                row[kind] = {
                    n: {"value": 0.5, "se": None, "reason": None, "definition": d}
                    for n, d in definitions.items()
                }
            write(store.model(row["model_id"]) / "row.json", row | {"status": "done"})


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


def stock() -> float:
    """Seconds per job of the composition that Hydra's basic sweeper does for each job."""
    with compose.hydra_context():
        grid = compose.grid(["study=paper", "dataset=digits"])
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", ["study=paper"], RunMode.MULTIRUN)
        seconds = []
        for (levels, _), _ in zip(grid.settings(), range(SAMPLE), strict=False):
            started = time.perf_counter()
            loader.load_sweep_config(master, grid.overrides(levels))
            seconds.append(time.perf_counter() - started)
    return median(seconds)


def main() -> None:
    paper = ["study=paper", "dataset=digits"]
    ours([*paper, "seed=0", "architecture=resnet18"])  # imports and caches are not what is timed
    one, per_job = ours(paper), stock()
    stock_seconds = per_job * one.models
    print(f"plan: {one.models} models in {one.plan:.2f} s")
    print(
        f"stock composition: {per_job * 1e3:.0f} ms a job (median of {SAMPLE}), so "
        f"{stock_seconds:.0f} s for {one.models} jobs; planning, validating and hashing them all "
        f"here is {stock_seconds / one.plan:.0f} times faster"
    )
    print(
        f"with all rows there: compared with the disk in {one.compare:.2f} s, status in "
        f"{one.status:.2f} s"
    )
    many = ours([*paper, f"seed={','.join(map(str, range(15)))}"])
    print(
        f"growth: {many.models / one.models:.1f} times the models ({many.models}) are planned in "
        f"{many.plan / one.plan:.1f} times the time ({many.plan:.2f} s), compared in "
        f"{many.compare / one.compare:.1f} times ({many.compare:.2f} s), and status takes "
        f"{many.status / one.status:.1f} times as long ({many.status:.2f} s)"
    )


if __name__ == "__main__":
    main()
