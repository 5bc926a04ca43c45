"""Partial tau, cross-validated R^2 and groups against plain computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.linear_model import LinearRegression
from synthetic import LARGER, noise, study

from sweep.analysis.controls import controls, cross_validated_r2, near_identical, partial_tau
from sweep.analysis.table import sample


def example(**more: np.ndarray):
    gap, train = noise(1, LARGER), noise(2, LARGER)
    values = {"a": gap + train, "b": gap + noise(3, LARGER), "c": noise(4, LARGER), **more}
    return study(values, LARGER, gap=gap, pgd_train=train)


def test_partial_tau_is_the_textbook_formula() -> None:
    table = example()
    frame = controls(table, draws=20).frame
    for name in "abc":
        x, y, z = table[f"measure/{name}"], table["gap"], table["pgd_train"]
        xy, xz, yz = (kendalltau(*pair).statistic for pair in ((x, y), (x, z), (y, z)))
        expected = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
        assert frame.loc[name, "partial"] == pytest.approx(expected, abs=1e-12)
        assert frame.loc[name, "tau_control"] == pytest.approx(xz, abs=1e-12)


def test_partial_tau_is_undefined_given_itself() -> None:
    one = np.ones(1)
    assert np.isnan(partial_tau(0.3 * one, one, 0.3 * one)).all()


def test_partial_tau_of_independent_control_is_tau() -> None:
    assert partial_tau(np.full(1, 0.4), np.zeros(1), np.zeros(1)) == pytest.approx(0.4)


def loop_r2(table, names: list[str], predictors: list[int]) -> float:
    """Fold by fold with scikit-learn; the folds are the analysis's own."""
    data = sample(table, predictors=["pgd_train"])
    fold = np.random.default_rng(0).permutation(data.num_trainings)[data.trainings] % 10
    x = data.x[:, predictors] / np.nanmax(data.x, axis=0)[predictors]
    known = ~np.isnan(x).any(axis=1)
    x, y, fold = x[known], data.target_values[known], fold[known]
    error = total = 0.0
    for k in range(10):
        fit, held = fold != k, fold == k
        if not held.any():
            continue
        model = LinearRegression().fit(x[fit], y[fit])
        error += np.square(y[held] - model.predict(x[held])).sum()
        total += np.square(y[held] - y[fit].mean()).sum()
    return 1 - error / total


def test_cross_validated_r2_equals_scikit_learn() -> None:
    partial = noise(6, LARGER)
    partial[::5] = np.nan
    table = example(d=partial)
    single, pairs, second = cross_validated_r2(sample(table, predictors=["pgd_train"]))
    names = ["a", "b", "c", "d", "pgd_train"]
    for a in range(5):
        assert single[a] == pytest.approx(loop_r2(table, names, [a]), abs=1e-6)
        for b in range(5):
            if a != b:
                assert pairs[a, b] == pytest.approx(loop_r2(table, names, [a, b]), abs=1e-6)
    assert second[0, 4] == pytest.approx(loop_r2(table, names, [4]), abs=1e-6)


def test_both_checkpoints_of_a_training_share_a_fold() -> None:
    """Otherwise a measure that only identifies the training would predict its other model."""
    rng = np.random.default_rng(0)
    table = example()
    per_training = dict(zip(table["training_id"].unique(), rng.normal(size=999), strict=False))
    table["gap"] = table["training_id"].map(per_training)
    table["measure/a"] = table["gap"].rank(method="dense") % 7  # no smooth relation to the gap
    single, _, _ = cross_validated_r2(sample(table))
    assert single[0] < 0.2


def test_near_identical_within_every_architecture() -> None:
    a = noise(7, LARGER)
    table = example(e=a, f=-(a**3), g=a)
    other = (table["architecture"] == "wrn28_10").to_numpy()
    table.loc[other, "measure/g"] = noise(8, LARGER)[other]  # alike in one architecture only
    table["measure/e"] += 1000 * other  # a shift between architectures changes nothing
    assert near_identical(table) == [["e", "f"]]


def test_clean_gap_is_controlled_by_clean_train_accuracy() -> None:
    table = example().assign(clean_gap=noise(9, LARGER), clean_train=noise(10, LARGER))
    assert controls(table, target="clean_gap", draws=5).control == "clean_train"
