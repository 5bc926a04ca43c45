"""``tables.md`` from the table that ships with the project, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import kendalltau

from sweep import analysis
from tests.rehearsal.publish import TARGET, section, tables

MEASURES = ("average_ce", "prob_margin", "x_grad_norm", "boundary_thickness", "inverse_margin")


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """The shipped table with a few of its measures."""
    whole = pd.read_parquet(TARGET / "models.parquet")
    kept = {f"measure/{name}" for name in MEASURES}
    others = [c for c in whole if c.startswith("measure/") and c.split(".")[0] not in kept]
    return whole.drop(columns=others)


@pytest.fixture(scope="module")
def page(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    nowhere = tmp_path_factory.mktemp("notes") / "none"
    return tables(analysis.analyse(table, draws=5), nowhere, (TARGET / "tables.md").read_text())


def test_numbers_of_the_page_come_from_the_table(table: pd.DataFrame, page: str) -> None:
    grid = table[table["seed"] == 0]
    once = grid.groupby("training_id").first()
    chosen = once["provenance/training.best_epoch"] != once["provenance/training.epochs"]
    best = grid[grid["early_stopping"].astype(bool)].set_index("training_id")["pgd_test"]
    last = grid[~grid["early_stopping"].astype(bool)].set_index("training_id")["pgd_test"]
    written = dict(row.strip("| ").split(" | ") for row in section(page, "Numbers of the page")[2:])
    assert written["models of the grid"] == "1,344"
    assert written["further models, seed replicates"] == "144"
    assert written["left out: masking"] == str(len(analysis.select(table).masking))
    key = "trainings that chose another epoch than the last"
    assert written[key] == f"{chosen.sum()} of 672"
    differ = (best != last.reindex(best.index)).sum()
    assert written["pairs of best and last that differ in `pgd_test`"] == f"{differ} of 672"
    used = analysis.select(table).used
    tau = kendalltau(used["pgd_train"], used["gap"]).statistic
    assert written["τ of `pgd_train`, the control, with `gap`"].startswith(f"{tau:+.2f} (")
    assert re.fullmatch(r"\d of 4", written["measures that add to the control"])
    low, high = 100 * grid["gap"].min(), 100 * grid["gap"].max()
    expected = f"{low:+.1f} to {high:+.1f} points".replace("-", "−")
    assert written["`gap`, lowest and highest of a model"] == expected


def test_masking_is_counted_along_each_axis(table: pd.DataFrame, page: str) -> None:
    rows = [row.strip("| ").split(" | ") for row in section(page, "Set apart as masking")[2:]]
    masks = analysis.select(table).masking
    for axis in ("method", "augmentation"):
        counted = {row[1]: int(row[3]) for row in rows if row[0] == axis}
        assert sum(counted.values()) == len(masks)
        assert {k: n for k, n in counted.items() if n} == masks[axis].value_counts().to_dict()


def test_faults_and_accounts_stay_where_there_are_no_notes(page: str, tmp_path: Path) -> None:
    before = (TARGET / "tables.md").read_text()
    for heading in ("Faults", "Accounts"):
        assert section(page, heading) == section(before, heading)
    with pytest.raises(ValueError, match=r"no section 'Faults' in tables\.md"):
        section("", "Faults")


def test_every_row_has_as_many_cells_as_its_heading(page: str) -> None:
    """Also where a claim speaks of |τ|; and no number is nan."""
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.replace(r"\|", "").count("|") for line in block.splitlines()}) == 1, block
    assert "nan" not in page
