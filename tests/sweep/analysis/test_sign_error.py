"""The sign error against a double loop over models written from its definition."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import LARGER, PAPER, noise, study

from sweep.analysis.sign_error import sign_errors

TRAIN, TEST = 203, 101  # examples; no multiples of 8, so the packed bits have a remainder


def with_correctness(seed: int, drop: float = 0.0):
    """A study whose gap comes from drawn per-example correctness."""
    rng = np.random.default_rng(seed)
    ids = study({}, LARGER)["model_id"]
    ease = rng.random(TRAIN), rng.random(TEST)
    correct = {
        model: {
            "pgd_train": ease[0] < rng.uniform(0.5, 0.9),
            "pgd_test": (ease[1] < rng.uniform(0.4, 0.6)) ^ (rng.random(TEST) < 0.05),
        }
        for model in ids
    }
    gap = [round(c["pgd_train"].mean() - c["pgd_test"].mean(), 9) for c in correct.values()]
    measures = {"a": gap + 0.1 * noise(seed, LARGER), "b": rng.integers(0, 3, len(ids)) * 1.0}
    measures["b"][rng.random(len(ids)) < 0.2] = np.nan
    table = study(measures, LARGER, gap=gap)
    return table[rng.random(len(ids)) >= drop], correct


def weight(a: dict, b: dict) -> float:
    """P(sign of the gap difference is right), normal, from examples both models saw."""
    train = a["pgd_train"].astype(int) - b["pgd_train"].astype(int)
    test = a["pgd_test"].astype(int) - b["pgd_test"].astype(int)
    error = math.sqrt(train.var() / TRAIN + test.var() / TEST)
    difference = abs(train.mean() - test.mean())
    return NormalDist().cdf(difference / error) if error else 1.0


def loop(table: pd.DataFrame, measure: str, axis: str, levels: set, correct) -> tuple[float, float]:
    """Weighted error and weight over all pairs of models that differ in ``axis`` only."""
    rows = table.to_dict("records")
    for row in rows:
        row["steps"] = None if pd.isna(row["steps"]) else int(row["steps"])
    total = wrong = 0.0
    for a, b in itertools.combinations(rows, 2):
        skip = {axis} | ({"steps"} if "standard" in (a["method"], b["method"]) else set())
        copies = 1
        if axis == "method" and "standard" in levels:
            other = a if b["method"] == "standard" else b
            copies = 1 if other["steps"] is not None else 0
        if axis == "steps" and None in (a["steps"], b["steps"]):
            continue
        same = all(a[k] == b[k] for k in PAPER if k not in (skip if axis == "method" else {axis}))
        if not same or {a[axis], b[axis]} != levels or copies == 0:
            continue
        dx, dy = a[f"measure/{measure}"] - b[f"measure/{measure}"], a["gap"] - b["gap"]
        if math.isnan(dx) or dy == 0:
            continue
        w = weight(correct[a["model_id"]], correct[b["model_id"]]) if correct else 1.0
        total += w
        wrong += w * (1 - np.sign(dx) * np.sign(dy)) / 2
    return (wrong / total if total else math.nan), total


ENVIRONMENTS = {
    "architecture: resnet18 | wrn28_10": ("architecture", {"resnet18", "wrn28_10"}),
    "method: at | mart": ("method", {"at", "mart"}),
    "method: standard | trades": ("method", {"standard", "trades"}),
    "steps: 1 | 10": ("steps", {1, 10}),
    "batch_size: 32 | 64": ("batch_size", {32, 64}),
    "early_stopping: false | true": ("early_stopping", {False, True}),
}


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3]), st.booleans())
def test_sign_error_equals_the_loop(seed: int, drop: float, weighted: bool) -> None:
    table, correct = with_correctness(seed, drop)
    result = sign_errors(table, correctness=correct.__getitem__ if weighted else None)
    assert (result.unweighted_because is None) is weighted
    for name, (axis, levels) in ENVIRONMENTS.items():
        for measure in "ab":
            error, total = loop(table, measure, axis, levels, correct if weighted else None)
            if name not in result.weights:
                assert total == 0
                continue
            assert result.weights.loc[measure, name] == pytest.approx(total)
            expected = error if total >= 10 else math.nan
            assert result.errors.loc[measure, name] == pytest.approx(expected, nan_ok=True)


def test_summary_points_to_the_worst_environment() -> None:
    gap = noise(0, LARGER)
    table = study({"good": gap, "falls": -gap}, LARGER, gap=gap)
    small = table["batch_size"] == 32
    table.loc[small & ~table["early_stopping"], "measure/good"] += 100  # wrong along one axis
    summary = sign_errors(table).summary
    assert summary.loc["good", "worst"] > 0.3
    assert summary.loc["falls", "direction"] == -1
    assert summary.loc["falls", "worst"] == 0


def test_why_pairs_are_unweighted_is_said() -> None:
    table, correct = with_correctness(0)
    first = table["model_id"].iloc[0]

    def lacking(model: str) -> dict[str, np.ndarray]:
        return {} if model == first else correct[model]

    def shorter(model: str) -> dict[str, np.ndarray]:
        return {key: c[: 50 if model == first else 60] for key, c in correct[model].items()}

    other = table.assign(other=table["gap"])
    plain = sign_errors(table)
    for result, reason in (
        (plain, "the per-example correctness was not given"),
        (sign_errors(table, correctness=lacking), f"model {first} has no per-example correctness"),
        (sign_errors(table, correctness=shorter), "60 examples in 'pgd_train', others 50"),
        (sign_errors(other, target="other", correctness=lacking), "other is not made of"),
    ):
        assert reason in str(result.unweighted_because)
        pd.testing.assert_frame_equal(result.weights, plain.weights)
