"""Studies drawn from a stated model: the verdicts are right and the intervals cover the truth.

The model: gap = sqrt(s) * t + sqrt(1 - s) * e with standard normal t per training and e per
model, so best and last checkpoint of a training are dependent. A measure that is the gap plus
independent noise of the same make has correlation rho with it, overall and in every cell, so its
tau and psi are both 2 / pi * asin(rho) (Kruskal 1958).
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from synthetic import SMALL, settings

from sweep.analysis import correlate
from sweep.analysis.controls import controls, near_identical
from sweep.analysis.correlation import tau_alone
from sweep.analysis.grid import cell_taus, cells_of
from sweep.analysis.intervals import mean_over_axes, mean_over_cells
from sweep.analysis.table import sample

GRID = {
    **SMALL,
    "architecture": ("resnet18", "wrn28_10"),
    "augmentation": ("none", "crop_flip"),
    "extra_data": (False, True),
}
SHARED = 0.5
COVERAGE_GRID = {**SMALL, "augmentation": ("none", "crop_flip")}
REPEATS = 200
NOISE = 1.0
TRUTH = 2 / math.pi * math.asin(1 / math.sqrt(1 + NOISE**2))


def component(table: pd.DataFrame, generator: np.random.Generator) -> np.ndarray:
    training = pd.factorize(table["training_id"])[0]
    shared = generator.normal(size=training.max() + 1)[training]
    own = generator.normal(size=len(table))
    return math.sqrt(SHARED) * shared + math.sqrt(1 - SHARED) * own


def planted(seed: int, grid: dict = GRID) -> pd.DataFrame:
    """``copy`` and ``pgd_train`` are correlated with the gap; the rest is in the module's head."""
    generator = np.random.default_rng(seed)
    table = settings(grid)
    gap = component(table, generator)
    train = gap + component(table, generator)
    by_method = table["method"].map({"standard": 0.0, "at": -6.0, "trades": 6.0, "mart": 12.0})
    turned = np.where(table["architecture"] == "resnet18", 1, -1)
    noise = [component(table, generator) for _ in range(5)]
    return table.assign(
        clean_test=0.9,
        gap=gap,
        pgd_train=train,
        **{
            "measure/good": gap + NOISE * noise[0],
            "measure/within": gap + 0.5 * noise[1] - by_method,
            "measure/flips": turned * gap + 0.5 * noise[2],
            "measure/noise": noise[3],
            "measure/copy": train + 0.05 * noise[4],
            "measure/twin": -np.exp(train + 0.05 * noise[4]),
        },
    )


@pytest.mark.parametrize("seed", range(3))
def test_verdicts_are_right(seed: int) -> None:
    table = planted(seed)
    result = correlate(table, draws=300)
    good, within, flips, noise = (result.loc[m] for m in ("good", "within", "flips", "noise"))
    assert good["tau_low"] > 0
    assert good["p_holm"] < 0.001
    assert good["psi_low"] > 0
    # works only within a method: nothing overall, everywhere inside
    assert abs(within["tau"]) < 0.3
    assert within["pi_method_low"] > max(0.5, within["tau_high"])
    # flips with the architecture: both levels clear, and opposite
    assert flips["pi_architecture=resnet18_low"] > 0.4
    assert flips["pi_architecture=wrn28_10_high"] < -0.4
    assert abs(flips["pi_architecture"]) < 0.2
    assert noise["p_holm"] > 0.01
    assert abs(noise["psi"]) < 0.25


@pytest.mark.parametrize("seed", range(3))
def test_a_copy_of_train_accuracy_is_exposed(seed: int) -> None:
    table = planted(seed)
    assert correlate(table, draws=100).loc["copy", "tau_low"] > 0.2  # looks fine by itself
    frame = controls(table, draws=100).frame
    assert frame.loc["copy", "explained"]
    assert frame.loc["copy", "tau_control"] > 0.9
    assert not frame.loc["good", "explained"]
    assert near_identical(table) == [["copy", "twin"]]


def test_tau_intervals_cover() -> None:
    covered = 0
    for seed in range(REPEATS):
        row = tau_alone(planted(seed, COVERAGE_GRID), draws=200, seed=seed).loc["good"]
        covered += row["tau_low"] <= TRUTH <= row["tau_high"]
    assert 0.90 <= covered / REPEATS <= 0.99


def test_psi_intervals_cover() -> None:
    covered_axis, covered_mean = 0, 0
    for seed in range(REPEATS):
        table = planted(seed, COVERAGE_GRID)
        data = sample(table[["model_id", "training_id", *GRID, "gap", "measure/good"]])
        parts = []
        for axis in ("batch_size", "early_stopping", "steps", "augmentation"):
            cells = cells_of(data, axis)
            parts.append((cells, cell_taus(cells, data.x, data.y)))
        low, high = mean_over_cells(*parts[0], data.trainings, draws=200, seed=seed, level=0.95)
        covered_axis += low[0] <= TRUTH <= high[0]
        low, high = mean_over_axes(parts, data.trainings, 0.95)
        covered_mean += low[0] <= TRUTH <= high[0]
    assert 0.90 <= covered_axis / REPEATS <= 0.99
    assert 0.90 <= covered_mean / REPEATS <= 0.99


def test_agreeing_cells_do_not_make_a_point_interval() -> None:
    """Where every cell says +1 the interval ends at the binomial bound for as many clusters."""
    table = planted(0).assign(**{"measure/good": planted(0)["gap"] * 2})
    row = correlate(table[table["early_stopping"]], draws=50).loc["good"]
    assert row["psi_batch_size"] == row["psi_batch_size_high"] == 1
    clusters = row["cells_batch_size"]  # one checkpoint only: every cell has its own trainings
    assert row["psi_batch_size_low"] == pytest.approx(2 * 0.025 ** (1 / clusters) - 1)
