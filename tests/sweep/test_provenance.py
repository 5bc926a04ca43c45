"""Where training, evaluation and measuring were done is kept apart; seconds are counted once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from defenses.numerics import numerics
from sweep import provenance, task
from sweep.columns import result_columns
from sweep.plan import plan
from sweep.tracking.client import slurm_job

SMALL = (
    "architecture=wrn10_1",
    "method=standard",
    "training.epochs=2",
    "dataset.train_size=64",
    "dataset.test_size=48",
    "evaluation.masking_images=16",
    "measuring.images=16",
    "tracking=none",
    "device=cpu",
)


def test_a_second_pass_leaves_the_training_s_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(job_id: str, *overrides: str) -> dict[str, object]:
        monkeypatch.setenv("SLURM_JOB_ID", job_id)
        planned = plan([*SMALL, *overrides, f"results_dir={tmp_path}"])
        (row,) = task.run(planned.jobs[0], planned.store).rows
        return row

    first = result_columns(run("1", "measures=[params]"))
    row = run("2", "measures=[path_norm]")
    columns = result_columns(row)
    assert columns["provenance/slurm_job_id"] == "1"
    assert columns["provenance/evaluation.slurm_job_id"] == "1"
    assert columns["provenance/measures.slurm_job_id"] == "2"
    for name in ("host", "commit", "torch", "device_name", "attempt"):
        for work in ("", "evaluation.", "measures."):
            assert f"provenance/{work}{name}" in columns
    assert columns["provenance/engine.precision"] == "fp32"
    assert slurm_job(columns) == "1"
    third = result_columns(run("3", "measures=[path_norm]", "evaluation.steps=3"))
    assert third["provenance/evaluation.slurm_job_id"] == "3"
    assert third["provenance/measures.slurm_job_id"] == "2"

    history = (tmp_path / "trainings" / str(row["training_id"]) / "history.jsonl").read_text()
    seconds = sum(json.loads(line)["seconds"] for line in history.splitlines())
    assert columns["cost/train_seconds"] == first["cost/train_seconds"]
    assert columns["cost/train_seconds"] == pytest.approx(seconds, abs=1e-3)
    assert columns["cost/train_seconds"] == round(columns["provenance/training.seconds"], 3)


def test_rows_and_states_of_first_versions_are_read(tmp_path: Path) -> None:
    planned = plan([*SMALL, "measures=[params]", f"results_dir={tmp_path}"])
    (job,), store = planned.jobs, planned.store
    (row,) = task.run(job, store).rows
    state_path = store.training(job.training_id) / "state.json"
    state = json.loads(state_path.read_text())
    del state["provenance"]  # as they were written then
    state_path.write_text(json.dumps(state | {"train_seconds": state["result"]["seconds"]}))
    old = {"host": "node7", "device_name": "a GPU", "cudnn_deterministic": False, "training": {}}
    store.write_row(row | {"provenance": old})
    planned = plan([*SMALL, "measures=[params,path_norm]", f"results_dir={tmp_path}"])
    columns = result_columns(task.run(planned.jobs[0], store).rows[0])
    assert columns["provenance/host"] == "node7"
    assert columns["provenance/measures.host"] != "node7"
    assert columns["provenance/training.epochs"] == 2


def test_a_failed_measuring_does_not_take_the_training_s_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    planned = plan([*SMALL, "measures=[params,path_norm]", f"results_dir={tmp_path}"])
    (job,), store = planned.jobs, planned.store

    def stop() -> bool:
        row = store.read_row(job.model_id("last"))
        return row is not None and bool(row["metrics"])

    assert task.run(job, store, should_stop=stop).outcome == "interrupted"
    monkeypatch.setenv("SLURM_JOB_ID", "2")
    with monkeypatch.context() as broken:
        broken.setattr(task.steps, "measure", lambda *a, **k: 1 / 0)
        (row,) = task.run(job, store).rows
    assert row["status"] == "failed"
    columns = result_columns(row)
    assert columns["provenance/slurm_job_id"] == "1"
    assert columns["provenance/measures.slurm_job_id"] == "2"


def test_flags_are_those_in_force() -> None:
    gpu = torch.device("cuda")
    with numerics(gpu):
        assert provenance.arithmetic(gpu) == {"tf32": False, "deterministic_algorithms": True}
        with numerics(gpu, tf32=True, deterministic=False):
            assert provenance.arithmetic(gpu) == {"tf32": True, "deterministic_algorithms": False}
    assert set(provenance.arithmetic(torch.device("cpu")).values()) == {None}
