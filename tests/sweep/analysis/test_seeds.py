"""Seed replicates: pooled standard deviation and share of pairs, against plain loops."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import SMALL, noise, study

from sweep.analysis import analyse, correlate, report, select
from sweep.analysis.seeds import seed_noise, split_seeds


def replicated() -> pd.DataFrame:
    """All settings with seed 0, the first six settings also with seeds 1 and 2."""
    parts = []
    for seed in range(3):
        part = study({"m": noise(seed, SMALL)}, SMALL, gap=noise(seed + 10, SMALL)).assign(
            seed=seed
        )
        part["model_id"] += f"-{seed}"
        part["training_id"] += f"-{seed}"
        parts.append(part if seed == 0 else part.head(6))
    return pd.concat(parts, ignore_index=True)


def test_split_keeps_the_seed_with_most_models() -> None:
    main, replicates = split_seeds(replicated())
    assert set(main["seed"]) == {0}
    assert len(replicates) == 12
    alone = replicated().drop(columns="seed")
    assert split_seeds(alone)[1].empty


def noise_of(table: pd.DataFrame) -> pd.DataFrame:
    selection = select(table)
    return seed_noise(selection.used, selection.replicates)


def test_pooled_sd_and_share_of_pairs() -> None:
    row = noise_of(replicated()).loc["gap"]
    groups = [[noise(seed + 10, SMALL)[k] for seed in range(3)] for k in range(6)]
    sd = np.sqrt(np.mean([np.var(group, ddof=1) for group in groups]))
    assert row["sd"] == pytest.approx(sd)
    assert (row["settings"], row["models"]) == (6, 18)
    main = noise(10, SMALL)
    closer = [abs(a - b) < sd for a, b in itertools.combinations(main, 2)]
    assert row["below"] == pytest.approx(np.mean(closer))
    assert row["ratio"] == pytest.approx(sd / np.std(main, ddof=1))


def test_missing_values_and_no_replicates() -> None:
    table = replicated()
    table.loc[table["seed"] == 1, "measure/m"] = np.nan
    row = noise_of(table).loc["m"]
    assert (row["settings"], row["models"]) == (6, 12)
    assert noise_of(table[table["seed"] == 0]).empty


def test_models_that_mask_are_no_evidence_about_seeds() -> None:
    """Neither of the seed's deviation nor of the spread: what counts is decided in one place."""
    table = replicated()
    flagged = table["model_id"].isin([*table["model_id"][:1], *table["model_id"][-1:]])
    table.loc[flagged, ["gap", "masking"]] = [100.0, True]
    found = analyse(table, draws=5).seeds.loc["gap"]
    without = table[~flagged]
    assert found.equals(noise_of(without).loc["gap"])
    assert found["spread"] == pytest.approx(without[without["seed"] == 0]["gap"].std())
    assert (found["settings"], found["models"]) == (6, 16)


def grid_of_seeds(levels: tuple[int, ...] = (0, 1, 2)) -> pd.DataFrame:
    """Every setting with every seed, as if the seed made no difference at all."""
    one = study({"m": noise(0, SMALL)}, SMALL, gap=noise(1, SMALL))
    parts = [one.assign(seed=seed) for seed in levels]
    for part, seed in zip(parts, levels, strict=True):
        part["model_id"] += f"-{seed}"
        part["training_id"] += f"-{seed}"
    return pd.concat(parts, ignore_index=True)


def test_a_grid_in_which_every_setting_has_every_seed_keeps_its_models() -> None:
    table = grid_of_seeds()
    table.loc[40, "status"] = "failed"
    selection = select(table)
    assert len(selection.used) == len(table) - 1
    assert selection.removed["seed replicates"] == 0
    assert noise_of(table).loc["gap", "settings"] == len(table) / 3
    few = table[table["seed"] == 2].head(6).assign(seed=3)
    more = select(pd.concat([table, few], ignore_index=True))
    assert set(more.used["seed"]) == {0, 1, 2}
    assert len(more.replicates) == 6


def test_seeds_of_a_setting_are_no_independent_evidence() -> None:
    """Three copies of every model say exactly as much as one: the same intervals and p-values."""
    three, one = (correlate(select(grid_of_seeds(s)).used).loc["m"] for s in ((0, 1, 2), (0,)))
    for column in ("trainings", "tau", "tau_low", "tau_high", "p", "pi_method=at_low"):
        assert three[column] == pytest.approx(one[column], abs=1e-9), column
    assert three["n"] == 3 * one["n"]
    assert three["psi_batch_size_low"] == pytest.approx(one["psi_batch_size_low"], abs=0.05)


def test_the_report_says_what_seeds_do(tmp_path: Path) -> None:
    page = report.render(analyse(grid_of_seeds(), draws=5), tmp_path / "a", formats=()).read_text()
    assert "intervals resample settings" in page
    assert "This study is small (14 settings)" in page
    table = grid_of_seeds()
    half = table[(table["seed"] == 0) | (table["method"] == "at")]
    page = report.render(analyse(half, draws=5), tmp_path / "b", formats=()).read_text()
    out = int(((half["seed"] != 0) & (half["method"] == "at")).sum())
    assert f"{out} models of {len(half)} are in no coefficient: only seed 0 covers the grid" in page
    assert "intervals resample settings" not in page
