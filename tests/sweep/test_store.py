"""Rows, digests, correctness and manifests: what is written is what is read, or is named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sweep import files
from sweep.analysis.table import axis_names
from sweep.columns import result_columns
from sweep.store import Store, new_row, read_manifest, row_digest


def row(store: Store) -> dict[str, object]:
    fresh = new_row(
        model_id="a-last",
        training_id="a",
        checkpoint="last",
        num_classes=10,
        axes={"method": "at", "steps": None},
    )
    fresh["metrics"] = {"gap": {"value": 0.125, "definition": "d"}}
    return store.write_row(fresh)


def test_row_round_trip_and_digest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    written = row(store)
    assert store.read_row("a-last") == written
    assert written["row_digest"] == row_digest(written)
    assert row_digest(written | {"costs": {"train_seconds": 9}}) == written["row_digest"]
    changed = {"gap": {"value": np.nextafter(0.125, 1), "definition": "d"}}
    assert row_digest(written | {"metrics": changed}) != written["row_digest"]


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nan"):
        files.write_json(tmp_path / "x.json", {"value": float("nan")})
    assert os.listdir(tmp_path) == []


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    row(store)
    path = store.model("a-last") / "row.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match=r"row.json is damaged"):
        store.read_row("a-last")


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
def test_correctness_round_trip(tmp_path: Path, count: int) -> None:
    store = Store(tmp_path)
    values = {"pgd_test": np.random.default_rng(count).random(count) < 0.5}
    store.write_correct("m", values, {"pgd_test": "d"})
    read = store.read_correct("m", {"pgd_test": "d"})
    assert read.keys() == values.keys()
    assert np.array_equal(read["pgd_test"], values["pgd_test"])


OLD, NEW = np.array([True, False, True]), np.array([False, False, True])


def of_first_version(root: Path) -> Store:
    """A store with a row whose accuracy is of the definition "old"."""
    store = Store(root)
    written = row(store)
    written["metrics"]["pgd_test"] = {"value": 0.5, "definition": "old"}
    store.write_row(written)
    return store


def assert_both_are_there(store: Store) -> None:
    for definition, expected in (("old", OLD), ("new", NEW)):
        read = store.read_correct("a-last", {"pgd_test": definition})
        assert read["pgd_test"].tolist() == expected.tolist()


def test_correctness_of_several_definitions_and_of_first_versions(tmp_path: Path) -> None:
    store = of_first_version(tmp_path)
    np.savez(store.model("a-last") / "correct.npz", pgd_test=np.packbits(OLD), pgd_test_n=3)
    assert store.read_correct("a-last")["pgd_test"].tolist() == OLD.tolist()
    assert store.read_correct("a-last", {"pgd_test": "new"}) == {}
    store.write_correct("a-last", {"pgd_test": NEW}, {"pgd_test": "new"})
    assert_both_are_there(store)
    assert store.read_correct("a-last")["pgd_test"].tolist() == OLD.tolist(), "as the row has it"


def test_correctness_that_old_code_wrote_beside_new(tmp_path: Path) -> None:
    store = of_first_version(tmp_path)
    store.write_correct("a-last", {"pgd_test": NEW}, {"pgd_test": "new"})
    path = store.model("a-last") / "correct.npz"
    with np.load(path) as stored:  # a job that waits with the code of a first version
        np.savez(path, **dict(stored), pgd_test=np.packbits(OLD), pgd_test_n=3)
    assert_both_are_there(store)


def test_a_manifest_line_cut_short_is_named_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    files.append_lines(path, ['{"a": 1}'])
    with open(path, "a") as file:
        file.write('{"a": ')  # a crash in the middle of a line
    files.append_lines(path, ['{"a": 3}'])
    with pytest.raises(ValueError, match=r"line 2 is cut short .* a copy of line 1 in its place"):
        list(read_manifest(path))
    lines = path.read_text().splitlines()
    assert lines[2] == '{"a": 3}', "whose number jobs in a queue know"
    path.write_text("\n".join(lines[:2]))
    with pytest.raises(ValueError, match=r"line 2 is cut short .* remove that line"):
        list(read_manifest(path))


def test_an_unwritable_results_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        Store(tmp_path / "file").check_writable()


def test_an_unknown_study_names_those_there_are(tmp_path: Path) -> None:
    files.append_lines(tmp_path / "studies" / "mine" / "manifest.jsonl", ["{}"])
    with pytest.raises(ValueError, match=r"no study 'yours'.*studies there: mine"):
        list(Store(tmp_path).manifest("yours"))


def test_why_a_model_is_masking_is_a_column_and_no_axis(tmp_path: Path) -> None:
    written = row(Store(tmp_path))
    written["metrics"]["masking"] = {
        "value": True,
        "reason": "Square breaks 9 %",
        "definition": "d",
    }
    columns = result_columns(written)
    assert columns["masking.reason"] == "Square breaks 9 %"
    assert axis_names(pd.DataFrame([written["axes"] | columns])) == ["method", "steps"]
