"""A row keeps a value per definition, and a column of a table holds values of one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import measures
from sweep import definitions, manifest, table, task
from sweep.analysis.selection import select
from sweep.analysis.table import axis_names, usable
from sweep.asked import OTHER, UNCLEAR
from sweep.plan import Plan, plan, progress
from sweep.setting import model_axes
from sweep.status import study_status
from sweep.store import Row, Store, new_row, row_digest
from sweep.tracking.compare import LocalRun, local_runs

SMALL = (
    "architecture=wrn10_1",
    "method=standard",
    "training.epochs=1",
    "dataset.train_size=64",
    "dataset.test_size=48",
    "evaluation.masking_images=0",
    "measures=[x_grad_norm,path_norm]",
    "tracking=none",
    "device=cpu",
)
NAMES = ["gap", "pgd_test", "measure/x_grad_norm", "measure/path_norm"]


def asked(root: Path, *overrides: str) -> Plan:
    planned = plan([*SMALL, *overrides, f"results_dir={root}"])
    manifest.append(planned.store, planned.study, planned.jobs)
    return planned


def one_run(store: Store, study: str) -> LocalRun:
    (run,) = local_runs(store, study)
    assert isinstance(run, LocalRun)
    return run


def test_two_studies_that_share_a_model_stay_complete(tmp_path: Path) -> None:
    first = asked(tmp_path, "study.name=first", "measuring.images=32")
    (job,), store = first.jobs, first.store
    (before,) = task.run(job, store).rows
    stored = before["row_digest"]
    mine = table.collect(store, "first")
    correct = store.read_correct(before["model_id"])

    second = asked(tmp_path, "study.name=second", "measuring.images=16", "evaluation.steps=2")
    (other,) = task.run(second.jobs[0], store).rows
    assert other["model_id"] == before["model_id"]
    assert other["measures"]["x_grad_norm"] != before["measures"]["x_grad_norm"]
    assert other["measures"]["path_norm"] == before["measures"]["path_norm"], "looks at no image"

    assert progress(first.jobs, store).todo == ()
    assert study_status(store, "first").counts == {"done": 1}
    again = table.collect(store, "first")
    pd.testing.assert_frame_equal(mine[NAMES], again[NAMES])
    seconds = "cost/measure_seconds/x_grad_norm"
    assert mine[seconds].item() == again[seconds].item()
    assert again["row_digest"].item() == stored
    assert again.attrs["warnings"] == []
    kept = table.correctness(store, "first")(before["model_id"])
    assert {k: v.tolist() for k, v in kept.items()} == {k: v.tolist() for k, v in correct.items()}

    theirs = table.collect(store, "second")
    assert theirs["measure/x_grad_norm"].item() == other["measures"]["x_grad_norm"]["value"]
    for study, shown in (("first", again.iloc[0]), ("second", theirs.iloc[0])):
        summary = one_run(store, study).content.summary
        assert [summary[name] for name in NAMES] == shown[NAMES].tolist(), "W&B shows the same"
        assert summary["row_digest"] == shown["row_digest"]

    path = store.model(before["model_id"]) / "row.json"
    content = path.read_bytes()
    (unchanged,) = task.run(job, store).rows
    assert path.read_bytes() == content, "computed again"
    assert unchanged["row_digest"] == stored
    assert unchanged["measures"] == before["measures"]


def test_digests_of_rows_without_kept_values_are_those_they_always_had() -> None:
    row = new_row(model_id="a-last", training_id="a", checkpoint="last", num_classes=10, axes={})
    row["metrics"] = {"gap": {"value": 0.125, "definition": "d"}}
    row["measures"] = {"m": {"value": 0.5, "se": None, "reason": None, "definition": "e"}}
    golden = "bd60337a0fabb444ddded7c1c8793dcbf668bccdd9a0be0d869a15fb1801db89"
    assert row_digest(row) == golden
    wanted = {"metrics": {"gap": "d"}, "measures": {"m": "f"}}
    assert definitions.seen(row, wanted) is row
    definitions.keep(row, "measures", "m", row["measures"]["m"])
    assert "other_definitions" not in row
    definitions.keep(row, "measures", "m", {**row["measures"]["m"], "definition": "f"})
    assert row_digest(definitions.seen(row, {**wanted, "measures": {"m": "e"}})) == golden


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Store]:
    """study(*overrides): as if a study had run with them, all values being ``value``.

    ``masking``: what the check for masking says, if it is asked for.
    """

    def run(
        *overrides: str, value: float = 0.5, masking: bool = False, name: str = "mixed"
    ) -> Store:
        planned = asked(tmp_path, f"study.name={name}", *overrides)
        wanted_by = definitions.reader()
        for job in planned.jobs:
            for checkpoint in job.checkpoints:
                model_id = job.model_id(checkpoint)
                row: Row = planned.store.read_row(model_id) or new_row(
                    model_id=model_id,
                    training_id=job.training_id,
                    checkpoint=checkpoint,
                    num_classes=10,
                    axes=model_axes(job.spec, checkpoint),
                )
                wanted: dict[str, Any] = dict(wanted_by(job))
                for part in definitions.PARTS:
                    for key in definitions.outdated(row, wanted, part):
                        found = masking if key == "masking" else value
                        reason = "Square" if found is True else None
                        entry = {"value": found, "se": None, "reason": reason}
                        definition = wanted[part][key]
                        definitions.keep(row, part, key, entry | {"definition": definition})
                planned.store.write_row(row | {"status": "done"})
        return planned.store

    return run


GRID = ("method=at,trades", "steps=1,2", "batch_size=32,64")


def test_a_column_holds_values_of_one_definition(
    study: Callable[..., Store], capsys: pytest.CaptureFixture[str]
) -> None:
    study(*GRID, "measures=[average_flat]")
    pairs = "+measuring.parameters.average_flat.pairs=3"
    store = study("method=at", *GRID[1:], "measures=[average_flat]", pairs, value=0.25)
    mixed = table.collect(store, "mixed")
    assert set(mixed["status"]) == {"done"}
    at = mixed["method"] == "at"
    assert mixed.loc[at, "measure/average_flat"].tolist() == [0.25] * 4
    assert mixed.loc[~at, "measure/average_flat"].isna().all()
    assert set(mixed.loc[~at, "measure/average_flat.reason"]) == {OTHER}
    (warning,) = mixed.attrs["warnings"]
    assert warning.startswith("measure/average_flat: 4 of 8 models are left blank: ")
    assert "pairs=3" in warning
    table.show_warnings(mixed)
    assert warning in capsys.readouterr().err
    stored = pd.read_parquet(store.study("mixed") / "models.parquet")
    assert stored.attrs["warnings"] == [warning]
    assert "pairs=3" in stored.attrs["parameters"]["measure/average_flat"]

    # asked for as at first, the column is whole again, and nothing is computed for it
    store = study(*GRID, "measures=[average_flat]", value=0.75)
    whole = table.collect(store, "mixed")
    assert whole["measure/average_flat"].tolist() == [0.5] * 8
    assert whole.attrs["warnings"] == []


def test_models_evaluated_otherwise_are_left_out_and_counted(study: Callable[..., Store]) -> None:
    study(*GRID)
    store = study("method=at", *GRID[1:], "evaluation.steps=20", value=0.75)
    mixed = table.collect(store, "mixed")
    assert mixed["gap"].dtype == "float64"
    assert usable(mixed).attrs["removed"] == {"not done": 0, "at chance": 0, "no clean_test": 4}
    assert set(usable(mixed)["method"]) == {"at"}
    (warning,) = mixed.attrs["warnings"]
    assert warning.startswith("clean_train, clean_test, fgsm_test, pgd_train, pgd_test, gap")
    assert "4 of 8 models" in warning
    assert "(steps=20, seed=0)" in warning
    assert "gap.reason" not in axis_names(mixed)


def test_a_column_that_the_study_never_asked_for_is_not_mixed_either(
    study: Callable[..., Store],
) -> None:
    study(*GRID)
    store = study("method=at", *GRID[1:], "measures=[average_flat]", name="other")
    alike = table.collect(store, "mixed")
    assert alike["measure/average_flat"].notna().sum() == 4, "of one definition: shown"
    assert alike.attrs["warnings"] == []
    pairs = "+measuring.parameters.average_flat.pairs=3"
    store = study("method=trades", *GRID[1:], "measures=[average_flat]", pairs, name="third")
    mixed = table.collect(store, "mixed")
    assert mixed["measure/average_flat"].isna().all()
    assert set(mixed["measure/average_flat.reason"]) == {UNCLEAR}
    (warning,) = mixed.attrs["warnings"]
    assert warning == f"measure/average_flat: 8 of 8 models are left blank: {UNCLEAR}"
    runs = [run for run in local_runs(store, "mixed") if isinstance(run, LocalRun)]
    assert [run.content.summary["measure/average_flat"] for run in runs] == [None] * 8


def test_a_measure_that_is_gone_does_not_stop_the_table(
    study: Callable[..., Store], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def twice(context):\n    return 2.0\n")
    study(*GRID, f"measures=[{mine}:twice]")
    store = study(*GRID)
    for copy in store.study("mixed").glob("measures/*/mine.py"):
        copy.unlink()
    assert table.collect(store, "mixed")["measure/twice"].tolist() == [0.5] * 8


def test_what_the_last_line_asks_for_and_is_gone_does_not_stop_anything(
    study: Callable[..., Store], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def twice(context):\n    return 2.0\n")
    store = study(*GRID, f"measures=[x_grad_norm,{mine}:twice]")
    for copy in store.study("mixed").glob("measures/*/mine.py"):
        copy.unlink()
    state = progress(manifest.jobs(store, "mixed").values(), store)
    assert (state.counts(), state.todo) == ({"done": 8}, ())
    assert table.collect(store, "mixed")["measure/x_grad_norm"].tolist() == [0.5] * 8


def test_an_edited_file_is_told_from_what_it_was(
    study: Callable[..., Store], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def twice(context):\n    return 2.0\n")
    study(*GRID, f"measures=[{mine}:twice]")
    mine.write_text("def twice(context):\n    return 3.0\n")
    store = study("method=at", *GRID[1:], f"measures=[{mine}:twice]")
    (warning,) = table.collect(store, "mixed").attrs["warnings"]
    assert warning.startswith("measure/twice: 4 of 8 models")
    (file,) = re.findall(r"file=(\w+/mine\.py)", warning)
    assert (store.study("mixed") / "measures" / file).read_text() == mine.read_text()


def test_a_parameter_that_is_gone_does_not_stop_the_table(
    study: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    study(*GRID, "measures=[average_flat]", "+measuring.parameters.average_flat.pairs=3")
    store = study(*GRID)
    known = measures.MEASURES["average_flat"]
    renamed = dataclasses.replace(known, function=lambda context, *, couples=10: 0.0)
    monkeypatch.setitem(measures.MEASURES, "average_flat", renamed)
    assert table.collect(store, "mixed")["measure/average_flat"].tolist() == [0.5] * 8
    store = study(*GRID, "measures=[average_flat]", value=0.75)
    assert table.collect(store, "mixed")["measure/average_flat"].tolist() == [0.75] * 8


def test_a_model_that_any_check_flagged_stays_out(study: Callable[..., Store]) -> None:
    def masking(images: int) -> str:
        return f"evaluation.masking_images={images}"

    study("method=at", *GRID[1:], masking(128), masking=True)
    study("method=mart,trades", *GRID[1:], masking(128))
    study("method=at", "steps=1", GRID[2], masking(64), name="other")  # the flag is kept beside it
    study("method=trades", *GRID[1:], masking(256))
    store = study("method=at,mart,trades", *GRID[1:], name="unasked")
    for name in ("mixed", "unasked"):
        mixed = table.collect(store, name)
        flags = mixed.groupby("method")["masking"].agg(list)
        assert flags["at"] == [True] * 4
        assert mixed.loc[mixed["method"] == "mart", "masking"].isna().all()
        selected = select(mixed)
        assert selected.masking["method"].tolist() == ["at"] * 4
        assert sorted(selected.used["method"]) == ["mart"] * 4 + ["trades"] * 4
        reason = OTHER if name == "mixed" else UNCLEAR
        assert set(selected.masking["masking.reason"]) == {f"Square; {reason}"}
        blank, flagged = mixed.attrs["warnings"]
        count = 4 if name == "mixed" else 8
        assert blank.startswith(f"masking: {count} of 12 models are left blank: {reason}")
        assert flagged == "masking: 4 of 12 models stay flagged by other checks"
    assert table.collect(store, "mixed")["masking"].eq(False).sum() == 4, "trades, as asked last"
