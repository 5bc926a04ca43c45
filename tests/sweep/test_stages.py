"""Training, evaluation and every measure are stages of their own: what is done stays done."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep import task
from sweep.plan import plan, progress

SMALL = (
    "architecture=wrn10_1",
    "method=standard",
    "training.epochs=1",
    "dataset.train_size=64",
    "measuring.images=32",
    "tracking=none",
    "device=cpu",
)


@pytest.mark.parametrize("names", ["path_norm,x_grad_norm,params", "path_norm"])
def test_a_stop_between_two_stages_loses_neither(tmp_path: Path, names: str) -> None:
    small = (*SMALL, f"measures=[{names}]")
    planned = plan([*small, f"results_dir={tmp_path / 'stopped'}"])
    (job,), store = planned.jobs, planned.store
    model = job.model_id("last")

    def all_but_measures_is_there() -> bool:
        row = store.read_row(model)
        return row is not None and bool(row["metrics"]) and not row["measures"]

    assert task.run(job, store, should_stop=all_but_measures_is_there).outcome == "interrupted"
    row = store.read_row(model)
    assert row is not None
    assert list(row["measures"]) == ["path_norm"]
    first = row["measures"]["path_norm"], row["costs"]["measure_seconds"]["path_norm"]
    assert progress([job], store).status == {model: "missing"}

    (after,) = task.run(job, store).rows
    kept = after["measures"]["path_norm"], after["costs"]["measure_seconds"]["path_norm"]
    assert kept == first, "measured again"
    undisturbed = plan([*small, f"results_dir={tmp_path / 'undisturbed'}"])
    (expected,) = task.run(job, undisturbed.store).rows
    assert after["row_digest"] == expected["row_digest"]
    assert progress([job], store).status == {model: "done"}
