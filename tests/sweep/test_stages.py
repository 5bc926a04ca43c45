"""Training, evaluation and every measure are stages of their own: what is done stays done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweep import manifest, table, task, tend
from sweep.choose import choose
from sweep.failures import group_failures
from sweep.plan import Plan, plan, progress
from sweep.status import study_status
from sweep.todo import select

SMALL = (
    "architecture=wrn10_1",
    "method=standard",
    "training.epochs=1",
    "dataset.train_size=64",
    "measuring.images=32",
    "tracking=none",
    "device=cpu",
)


def asked(root: Path, *overrides: str) -> Plan:
    planned = plan([*SMALL, *overrides, f"results_dir={root}"])
    manifest.append(planned.store, planned.study, planned.jobs)
    return planned


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


def test_a_failure_after_training_is_seen_by_those_who_asked_for_it(tmp_path: Path) -> None:
    greedy = tmp_path / "greedy.py"
    greedy.write_text(
        "import torch\n\n\ndef hungry(context):\n    raise torch.OutOfMemoryError('3.2 GB')\n"
    )

    def wanting(study: str, names: str) -> Plan:
        return asked(tmp_path / "results", f"study.name={study}", f"measures=[{names}]")

    first = wanting("first", "params")
    store, model = first.store, first.jobs[0].model_id("last")
    assert task.run(first.jobs[0], store).outcome == "done"
    second = wanting("second", f"params,{greedy}:hungry")
    assert progress(second.jobs, store).status == {model: "missing"}, "not tried yet"
    assert task.run(second.jobs[0], store).outcome == "oom"

    state = progress(second.jobs, store)
    assert (state.status, state.measure_only) == ({model: "oom"}, {0})
    (group,) = group_failures(store, "second")
    assert (group.status, group.reason) == ("oom", "OutOfMemoryError: 3.2 GB")
    assert group.trace is not None
    assert "in hungry" in group.trace
    assert table.collect(store, "second")["reason"].item() == group.reason
    for condition in ("status=oom", "reason=3.2"):
        assert list(choose(store, "second", [condition])) == [0]
    assert select(replace(second, config={**second.config, "resume": "failed"}), state) == [0]

    assert progress(first.jobs, store).status == {model: "done"}
    assert group_failures(store, "first") == []
    third = wanting("third", "params,path_norm")
    assert progress(third.jobs, store).status == {model: "missing"}
    assert task.run(third.jobs[0], store).outcome == "done"
    assert progress(second.jobs, store).status == {model: "oom"}


@pytest.mark.parametrize(
    "more",
    [
        ["evaluation.masking_images=8"],
        ["evaluation.masking_images=0", "evaluation=autoattack", "evaluation.autoattack_images=2"],
    ],
    ids=["masking", "autoattack"],
)
def test_what_the_accuracies_cost_is_kept_when_others_are_added(
    tmp_path: Path, more: list[str]
) -> None:
    few = [*SMALL, "measures=[]", "dataset.test_size=16", f"results_dir={tmp_path}"]
    first = plan([*few, "evaluation.masking_images=0"])
    (row,) = task.run(first.jobs[0], first.store).rows
    row["costs"]["evaluate_seconds"] = 1234.5
    first.store.write_row(row)
    (after,) = task.run(plan([*few, *more]).jobs[0], first.store).rows
    assert after["metrics"].keys() > row["metrics"].keys()
    assert after["costs"] == row["costs"]
    (again,) = task.run(plan([*few, "evaluation.steps=2"]).jobs[0], first.store).rows
    assert again["costs"]["evaluate_seconds"] != 1234.5


def test_a_retry_does_every_model_that_the_study_has_of_a_training(tmp_path: Path) -> None:
    """Whichever line asked for it: it was by all lines together that the training was chosen."""
    s = ("study.name=s", "evaluation.masking_images=0")
    asked(tmp_path, *s, "early_stopping=false", "measures=[]")
    later = asked(tmp_path, *s, "early_stopping=true", "measures=[path_norm]")
    store = later.store
    assert task.run(later.jobs[0], store).outcome == "done"
    assert study_status(store, "s").counts == {"done": 1, "missing": 1}
    assert tend.retry(store, "s", choose(store, "s", ["status=missing"])) == 0
    assert study_status(store, "s").counts == {"done": 2}
    row = store.read_row(later.jobs[0].model_id("last"))
    assert row is not None
    assert set(row["measures"]) == {"path_norm"}, "what the last line says holds"
