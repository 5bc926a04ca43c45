"""study=robustbench with the package itself: its networks, its file layout, the real commands."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from tests.sweep import small_zoo
from tests.sweep.conftest import Launch
from tests.sweep.small_zoo import LABELS

pytestmark = pytest.mark.zoo


def test_end_to_end(tmp_path: Path, launch: Launch, sweep: Launch) -> None:
    small_zoo.write_images(tmp_path / "small.npz")
    study = small_zoo.study(tmp_path / "small.npz", tmp_path / "results")
    refused = launch("-m", *study)
    assert refused.returncode == 2
    assert "Wong2020Fast.pt is missing: `python -m sweep prepare`" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1

    *_, path = small_zoo.write_weights(tmp_path / "results/zoo")
    prepared = sweep("prepare", *study)  # nothing to fetch: records checksums
    assert prepared.returncode == 0, prepared.stderr
    assert path.with_name(f"{path.name}.sha256").is_file()

    done = launch("-m", *study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 imported models" in done.stdout
    table = pd.read_parquet(tmp_path / "results/studies/robustbench/models.parquet")
    assert set(table["status"]) == {"done"}
    assert set(table["imported"]) == set(LABELS)
    assert set(zip(table["norm"], table["eps"], strict=True)) == {("linf", 8 / 255), ("l2", 0.5)}
    assert (table["clean_train"] > 0.5).all()  # the weights that were saved are those measured
    assert (table["clean_test"] >= table["pgd_test"]).all()
    assert table["measure/prob_margin_clean"].notna().all()
    assert table["measure/euclid_init_norm"].isna().all()
    reasons = set(table["measure/euclid_init_norm.reason"])
    assert reasons == {"the weights before training are not known"}
    assert "everything is there already" in launch("-m", *study).stdout
    report = sweep("report", "robustbench", f"--results-dir={tmp_path}/results")
    assert report.returncode == 0, report.stdout + report.stderr
    compared = sweep("compare", "robustbench", "robustbench", f"--results-dir={tmp_path}/results")
    assert compared.returncode == 0, compared.stdout + compared.stderr

    path.write_bytes(path.read_bytes()[:-1000])
    corrupt = launch("-m", *study, "measures=[param_norm,ece]")
    assert corrupt.returncode == 1
    assert "has changed since it was fetched" in corrupt.stdout + corrupt.stderr
