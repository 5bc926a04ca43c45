"""tau, psi and pi against double loops written from the definitions, and against SciPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, stdtrit
from scipy.stats import kendalltau
from synthetic import LARGER, PAPER, SMALL, noise, study

from sweep.analysis import correlate, usable
from sweep.analysis.correlation import coefficients, summarise
from sweep.analysis.grid import cells_of
from sweep.analysis.kendall import tau_matrix, weighted_tau
from sweep.analysis.table import sample

AXES = tuple(PAPER)


# --- the definitions, as plainly as possible: loops over pairs of dicts -----------------------


def loop_tau_b(pairs: Sequence[tuple[float, float]]) -> float:
    concordance, untied_x, untied_y = 0, 0, 0
    for (x1, y1), (x2, y2) in itertools.combinations(pairs, 2):
        dx, dy = (x1 > x2) - (x1 < x2), (y1 > y2) - (y1 < y2)
        concordance += dx * dy
        untied_x += dx != 0
        untied_y += dy != 0
    if untied_x == 0 or untied_y == 0:
        return math.nan
    return concordance / math.sqrt(untied_x * untied_y)


def known_rows(table: pd.DataFrame, measure: str) -> list[dict[str, Any]]:
    table = table[table[f"measure/{measure}"].notna() & table["gap"].notna()]
    rows = table.to_dict("records")
    for row in rows:
        row["steps"] = None if pd.isna(row["steps"]) else int(row["steps"])
    return rows


def tau_of(rows: Sequence[dict[str, Any]], measure: str) -> float:
    return loop_tau_b([(row[f"measure/{measure}"], row["gap"]) for row in rows])


def loop_psi(
    table: pd.DataFrame, measure: str, axis: str, with_standard: bool = False
) -> tuple[float, int, int, int]:
    """psi, defined cells, tied cells, pairs in defined cells."""
    rows = known_rows(table, measure)
    standard = [row for row in rows if row["steps"] is None]
    if axis in ("steps", "method"):
        rows = [row for row in rows if row["steps"] is not None]
    if with_standard:
        rows += [{**row, "steps": steps} for row in standard for steps in (1, 10)]
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault(tuple(row[a] for a in AXES if a != axis), []).append(row)
    taus = {key: tau_of(cell, measure) for key, cell in cells.items() if len(cell) > 1}
    defined = {key: tau for key, tau in taus.items() if not math.isnan(tau)}
    pairs = sum(math.comb(len(cells[key]), 2) for key in defined)
    mean = sum(defined.values()) / len(defined) if defined else math.nan
    return mean, len(defined), len(taus) - len(defined), pairs


def loop_pi(table: pd.DataFrame, measure: str, axis: str) -> float:
    rows = known_rows(table, measure)
    levels = {row[axis] for row in rows} - {None}
    taus = [tau_of([row for row in rows if row[axis] == level], measure) for level in levels]
    taus = [tau for tau in taus if not math.isnan(tau)]
    return sum(taus) / len(taus) if taus else math.nan


def same(value: float, expected: float) -> bool:
    return value == pytest.approx(expected, abs=1e-12, nan_ok=True)


# --- property-based: hundreds of tables, complete and incomplete, with ties and NaN -----------


@st.composite
def incomplete_studies(draw: st.DrawFn) -> pd.DataFrame:
    levels = draw(st.sampled_from([SMALL, SMALL, SMALL, LARGER]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = len(noise(0, levels))
    distinct = draw(st.sampled_from([2, 3, 8, 10**6]))  # few distinct values: many ties

    def column(missing: float) -> np.ndarray:
        values = generator.integers(0, distinct, size=n).astype(float)
        return np.where(generator.random(n) < missing, np.nan, values)

    missing = draw(st.sampled_from([0.0, 0.3, 0.8]))
    measures = {"a": column(missing), "b": column(0.0), "constant": np.ones(n)}
    if draw(st.booleans()):
        measures["b"][generator.random(n) < 0.2] = np.inf
    table = study(measures, levels, gap=column(draw(st.sampled_from([0.0, 0.3]))))
    removed = generator.random(n) < draw(st.sampled_from([0.0, 0.3, 0.6]))
    return table[~removed].sample(frac=1, random_state=int(generator.integers(1000)))


@settings(max_examples=200, deadline=None)
@given(incomplete_studies())
def test_coefficients_equal_the_loops(table: pd.DataFrame) -> None:
    try:
        result = correlate(table, draws=1)
    except ValueError as error:  # so few rows are left that there is nothing to correlate
        assert any(words in str(error) for words in ("at least two", "NaN"))  # noqa: PT017
        return
    levels = [c for c in result if c.startswith("pi_") and "=" not in c]
    varied = [c.removeprefix("pi_") for c in levels if not c.endswith(("_low", "_high"))]
    assert any(c.startswith("cells_") for c in result) == (len(varied) >= 2)
    for measure, row in result.iterrows():
        rows = known_rows(table, str(measure))
        assert row["n"] == len(rows)
        assert same(row["tau"], tau_of(rows, str(measure)))
        psis, pis = [], []
        for axis in (c.removeprefix("cells_") for c in result if c.startswith("cells_")):
            with_standard = axis == "method_with_standard"
            name = "method" if with_standard else axis
            psi, defined, tied, pairs = loop_psi(table, str(measure), name, with_standard)
            assert same(row[f"psi_{axis}"], psi)
            counts = (row[f"cells_{axis}"], row[f"tied_{axis}"], row[f"pairs_{axis}"])
            assert counts == (defined, tied, pairs)
            if not with_standard:
                psis.append(psi)
        for axis in varied:
            pis.append(loop_pi(table, str(measure), axis))
            assert same(row[f"pi_{axis}"], pis[-1])
        for whole, parts in ((row["psi"], psis), (row["pi"], pis)):
            known = [part for part in parts if not math.isnan(part)]
            assert same(whole, sum(known) / len(known) if known else math.nan)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(1, 30),
    st.sampled_from([-1, -0.5, 0]),
    st.integers(0, 2**32 - 1),
)
def test_tau_equals_scipy(n: int, distinct: int, least: float, seed: int) -> None:
    x, y = least + np.random.default_rng(seed).integers(0, distinct, size=(2, n)) / 2
    tau = weighted_tau(x[:, None], y, np.arange(n), np.ones((1, n), dtype=np.float32))[0, 0]
    assert same(tau, kendalltau(x, y).statistic)


NUMBERS = st.sampled_from([-math.inf, -1.0, -0.5, 0.0, 1.0, math.inf]) | st.floats(-1, 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=30))
@example([(-1, -1), (0.2, 0.1), (0.9, 0.3), (0.5, 0.8)])
def test_tau_of_any_numbers_equals_scipy(pairs: list[tuple[float, float]]) -> None:
    """Not only of ranks: a comparison of studies correlates coefficients, down to -1."""
    x, y = np.array(pairs, dtype=float).T
    tau = weighted_tau(x[:, None], y, np.arange(len(x)), np.ones((1, len(x)), dtype=np.float32))
    assert same(tau[0, 0], kendalltau(x, y).statistic)


def test_tau_equals_scipy_on_the_paper_sized_table() -> None:
    gap = noise(1).round(1)
    result = correlate(study({"m": (gap + noise(2)).round(1)}, gap=gap), draws=1)
    expected = kendalltau((gap + noise(2)).round(1), gap).statistic
    assert result.loc["m", "tau"] == pytest.approx(expected, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_weights_are_repetitions(seed: int) -> None:
    """Drawing a training twice is the same as writing its rows twice."""
    generator = np.random.default_rng(seed)
    x, y = generator.integers(0, 6, size=(2, 14)).astype(float)
    clusters = np.repeat(np.arange(7), 2)
    weights = generator.multinomial(7, np.full(7, 1 / 7), size=3)
    taus = weighted_tau(x[:, None], y, clusters, weights.astype(np.float32))[:, 0]
    for tau, weight in zip(taus, weights, strict=True):
        rows = np.repeat(np.arange(14), weight[clusters])
        assert same(tau, loop_tau_b(list(zip(x[rows].tolist(), y[rows].tolist(), strict=True))))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_tau_matrix_equals_scipy_over_common_rows(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 9, size=(12, 3)).astype(float)
    x[generator.random(x.shape) < 0.2] = np.nan
    matrix = tau_matrix(x)
    for a, b in itertools.product(range(3), repeat=2):
        expected = kendalltau(x[:, a], x[:, b], nan_policy="omit").statistic
        assert same(matrix[a, b], expected)


# --- the paper's grid, counted by hand ---------------------------------------------------------


def test_cells_of_the_paper_grid() -> None:
    """1,344 models; cells per axis follow from the levels; standard is part of 1/7 of them."""
    data = sample(study({"m": noise(0)}, gap=noise(1)))
    counts = {axis: cells_of(data, axis).count for axis in AXES}
    assert counts == {
        "architecture": 448,  # 1344 / 3
        "method": 384,  # 3 x 2 x 2 x 4 x 2 x 2 x 2, robust methods only
        "steps": 576,  # 1152 / 2, standard takes no part
        "optimizer": 672,
        "batch_size": 336,
        "augmentation": 672,
        "extra_data": 672,
        "early_stopping": 672,
    }
    with_standard = cells_of(data, "method", with_standard=True)
    assert with_standard.count == 384
    assert len(with_standard.cell) == 384 * 6  # four methods in every cell


def test_two_level_cells_are_plus_or_minus_one() -> None:
    result = correlate(study({"m": noise(0)}, gap=noise(1)), draws=1)
    cells = result.loc["m", "cells_optimizer"]
    agreeing = (result.loc["m", "psi_optimizer"] + 1) / 2 * cells
    assert agreeing == pytest.approx(round(agreeing), abs=1e-9)


# --- what correlate and usable promise ----------------------------------------------------------


def test_extra_axis_is_held_fixed_even_when_not_asked_for() -> None:
    """psi over one axis must not compare models that also differ in another."""
    table = study({"m": noise(0)}, gap=noise(1))
    alone = correlate(table, axes=["optimizer"], draws=1)
    assert alone.loc["m", "psi_optimizer"] == correlate(table, draws=1).loc["m", "psi_optimizer"]
    assert "psi_method" not in alone


def test_a_varied_option_beyond_the_eight_is_an_axis() -> None:
    seeds = [
        study({"m": noise(s, SMALL)}, SMALL, gap=noise(9 - s, SMALL)).assign(seed=s) for s in (0, 1)
    ]
    eps = pd.concat([t.assign(**{"threat.eps": 0.1 * (s + 1)}) for s, t in enumerate(seeds)])
    result = correlate(eps.drop(columns="seed"), draws=1)
    assert result.loc["m", "cells_threat.eps"] == len(seeds[0])
    assert {"pi_threat.eps=0.1", "pi_threat.eps=0.2"} <= set(result)


def test_usable_counts_what_it_removes() -> None:
    table = study({"m": noise(0, SMALL)}, SMALL, gap=noise(1, SMALL))
    table.loc[0, "status"] = "diverged"
    table.loc[1:3, "clean_test"] = [0.15, 0.14, np.nan]  # chance is 0.1: the limit is 0.15
    table.loc[0, "clean_test"] = np.nan
    kept = usable(table)
    assert len(kept) == len(table) - 4
    assert kept.attrs["removed"] == {"not done": 1, "at chance": 2, "no clean_test": 1}


def test_same_seed_same_intervals() -> None:
    table = study({"m": noise(0, SMALL)}, SMALL, gap=noise(1, SMALL))
    pd.testing.assert_frame_equal(correlate(table, draws=50), correlate(table, draws=50))
    assert not correlate(table, draws=50).equals(correlate(table, draws=50, seed=1))


def test_column_order_and_row_order_do_not_matter() -> None:
    table = study({"m": noise(0, SMALL)}, SMALL, gap=noise(1, SMALL))
    shuffled = table.sample(frac=1, random_state=0)[table.columns[::-1]]
    estimates = ["tau", "psi", "pi"]
    pd.testing.assert_frame_equal(
        correlate(table, draws=1)[estimates], correlate(shuffled, draws=1)[estimates]
    )


# --- bad input -----------------------------------------------------------------------------------


def rejected(table: pd.DataFrame, words: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=words):
        correlate(table, **options)


def test_bad_input_is_named() -> None:
    table = study({"m": noise(0, SMALL)}, SMALL, gap=noise(1, SMALL))
    rejected(table.drop(columns="gap"), "no target 'gap'")
    rejected(table, "no target 'aa_gap'; it has: gap", target="aa_gap")
    rejected(table.drop(columns="measure/m"), "no measure")
    rejected(table.assign(**{"measure/m": np.nan}), "every value of every measure is NaN")
    rejected(table.assign(gap=np.nan), "0 model.* at least two")
    rejected(table.head(1), "1 model.* at least two")
    rejected(table.drop(columns="training_id"), "no column 'training_id'")
    rejected(table, "'colour' is no axis of this table; choose from: architecture", axes=["colour"])
    rejected(table.assign(**{"measure/m": "high"}), "'measure/m' does not hold numbers")


def test_without_two_axes_only_psi_is_missing() -> None:
    """Imported models differ in nothing but their names: there is tau, and nothing to hold."""
    table = study({"m": noise(0, SMALL)}, SMALL, gap=noise(1, SMALL))
    fixed = table.drop(columns=[*AXES]).assign(imported=table["model_id"])
    for part, reason in ((fixed, "only imported varies"), (fixed.assign(imported="a"), "no axis")):
        assert reason in str(sample(part).no_cells)
        row = correlate(part, draws=50).loc["m"]
        assert row["tau"] == correlate(table, draws=50).loc["m", "tau"]
        assert row["tau_low"] < row["tau"] < row["tau_high"]
        assert math.isnan(row["psi"])
        assert math.isnan(row["pi"])  # no two models are at one level
    assert sample(table).no_cells is None


def test_an_interval_within_a_level_rests_on_the_trainings_there() -> None:
    """14 trainings in all, 4 of them by AT; of a measure known for fewer, on fewer."""
    partial = noise(2, SMALL)
    at = np.flatnonzero(study({}, SMALL)["method"] == "at")
    partial[at[2:]] = np.nan  # both checkpoints of one training are left
    table = study({"m": noise(0, SMALL), "partial": partial}, SMALL, gap=noise(1, SMALL))
    table = pd.concat([table.iloc[at[:2]], table.drop(index=table.index[at[:2]])])
    result = coefficients(sample(table), draws=300)
    assert result.trainings.tolist() == [14, 11]
    assert result.trainings_within["method", "at"].tolist() == [4, 1]
    assert result.trainings_within["early_stopping", "true"].tolist() == [14, 11]
    frame = summarise(result)
    draws = result.within["method", "at"][1:, 0]
    tail = ndtr(-math.sqrt(4 / 3) * stdtrit(3, 0.975))
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    assert frame.loc["m", "pi_method=at_low"] == low
    assert frame.loc["m", "pi_method=at_high"] == high


def test_a_single_measure_without_values_stays_in_the_table() -> None:
    table = study({"m": noise(0, SMALL), "absent": np.nan}, SMALL, gap=noise(1, SMALL))
    result = correlate(table, draws=5)
    assert result.loc["absent", "n"] == 0
    assert result.loc["absent", ["tau", "psi", "pi", "p_holm"]].isna().all()


def test_eps_is_an_axis_although_it_is_a_fraction() -> None:
    """Rows carry dataset, seed, norm and eps; models under different threats never share a cell."""
    one = study({"m": noise(0, SMALL)}, SMALL, gap=noise(1, SMALL)).assign(eps=0.1)
    other = study({"m": noise(2, SMALL)}, SMALL, gap=noise(3, SMALL)).assign(eps=0.2)
    result = correlate(pd.concat([one, other]), draws=1)
    assert result.loc["m", "cells_eps"] == len(one)
    assert result.loc["m", "cells_batch_size"] == len(one)  # per eps half as many
