"""Seed replicates: pooled standard deviation and share of pairs, against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from synthetic import SMALL, noise, study

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


def test_pooled_sd_and_share_of_pairs() -> None:
    table = replicated()
    row = seed_noise(table).loc["gap"]
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
    row = seed_noise(table).loc["m"]
    assert (row["settings"], row["models"]) == (6, 12)
    assert seed_noise(table[table["seed"] == 0]).empty
