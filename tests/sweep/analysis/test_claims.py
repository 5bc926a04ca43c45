"""Each claim's three outcomes, on studies where the answer is planted; and claims from YAML."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit
from synthetic import PAPER, SMALL, noise, study

from sweep.analysis import claims, intervals
from sweep.analysis.comparison import compare
from sweep.analysis.correlation import Coefficients, coefficients
from sweep.analysis.kendall import bootstrap_weights, weighted_tau
from sweep.analysis.table import sample
from sweep.analysis.user_claims import Claim, check_claim, read_claims

GRID = {
    **SMALL,
    "optimizer": ("sgd", "awp"),
    "extra_data": (False, True),
    "architecture": PAPER["architecture"],
}
GAP = noise(0, GRID)


def measured(axes: tuple[str, ...] = tuple(GRID), **values: np.ndarray) -> Coefficients:
    return coefficients(sample(study(values, GRID, gap=GAP), axes=axes), draws=200)


def near(rho_noise: float, seed: int) -> np.ndarray:
    return GAP + rho_noise * noise(seed, GRID)


def by(axis: str, **factors: float) -> np.ndarray:
    return study({}, GRID)[axis].map(factors).to_numpy()


def test_no_perfect_measure() -> None:
    assert claims.no_perfect_measure(measured(m=near(1, 1))).outcome == "holds"
    assert claims.no_perfect_measure(measured(m=-near(0.01, 1))).outcome == "does not hold"
    verdict = claims.no_perfect_measure(measured(a=near(1, 2), m=near(0.17, 1)))
    assert verdict.low < 0.9 < verdict.high
    assert verdict.outcome == "undecided"
    assert verdict.detail == "m comes closest"


def test_train_accuracy_is_no_perfect_measure() -> None:
    """A control can reach anything: the claim is about proposed properties."""
    result = measured(m=near(1, 1), train_accuracy=near(0.01, 2))
    assert claims.no_perfect_measure(result).outcome == "holds"


def test_defense_matters() -> None:
    turning = GAP * by("method", standard=1, at=1, trades=-1, mart=1) + 0.5 * noise(1, GRID)
    steady = {f"steady{k}": near(0.3, k) for k in range(4)}
    verdict = claims.defense_matters(measured(boundary_thickness=turning, **steady))
    assert verdict.outcome == "holds"
    assert verdict.value > 1
    assert "1 of 5 measures (controls left out) has such a range" in verdict.detail
    assert "place 1 among 5 measures, as only 1 of the article's 16 has a range" in verdict.detail
    others = {f"turning{k}": turning + 0.1 * noise(9 + k, GRID) for k in range(3)}
    verdict = claims.defense_matters(measured(boundary_thickness=near(0.3, 5), **others))
    assert verdict.outcome == "does not hold"
    verdict = claims.defense_matters(measured(**others))
    assert verdict.outcome == "undecided"
    assert "was not measured" in verdict.detail
    assert claims.defense_matters(measured(**steady)).outcome == "does not hold"


TURNING = GAP * by("method", standard=1, at=1, trades=-1, mart=1) + 0.5 * noise(1, GRID)


def test_controls_do_not_decide_whether_the_defense_matters() -> None:
    """Only train accuracy, and copies of it, have a range: no proposed property has."""
    steady = {f"steady{k}": near(0.3, k) for k in range(3)}
    control = {"train_accuracy": TURNING, "entropy": TURNING, "ece": TURNING}
    steady["boundary_thickness"] = near(0.3, 5)
    verdict = claims.defense_matters(measured(**control, **steady))
    assert verdict.outcome == "does not hold"
    assert "0 of 4 measures (controls left out)" in verdict.detail
    turning = steady | {"boundary_thickness": TURNING}
    stronger = {name: TURNING + 0.01 * noise(k, GRID) for k, name in enumerate(control)}
    verdict = claims.defense_matters(measured(**stronger, **turning))
    assert verdict.outcome == "holds"
    assert "boundary_thickness has place 1 among 4 measures" in verdict.detail
    absent = claims.defense_matters(measured(**control, steady=near(0.3, 1)))
    assert "steady the largest" in absent.detail


def test_the_three_largest_are_those_of_the_articles_measures() -> None:
    """Further measures of a table are no rivals; where the article's are too few, it is said."""
    article = dict.fromkeys(("path_norm", "x_grad_norm", "local_lip", "average_ce"), near(0.3, 2))
    wider = GAP * by("method", standard=1, at=1, trades=-1, mart=1)
    others = {f"mine{k}": wider + 0.1 * noise(20 + k, GRID) for k in range(4)}
    verdict = claims.defense_matters(measured(boundary_thickness=TURNING, **others, **article))
    assert verdict.outcome == "holds"
    assert "place 1 among the 5 of the article's 16 measures that have a range" in verdict.detail
    verdict = claims.defense_matters(measured(boundary_thickness=TURNING, **others))
    assert verdict.outcome == "does not hold"
    assert "place 5 among 5 measures, as only 1 of the article's 16 has" in verdict.detail
    few = claims.defense_matters(measured(boundary_thickness=TURNING, mine=near(0.3, 1)))
    assert few.outcome == "undecided"
    assert "place 1 among 2 measures" in few.detail
    assert "too few to tell" in few.detail


def test_reversed_measures() -> None:
    expected = {"inverse_margin": near(0.5, 1), "average_flat": near(0.5, 2)}
    assert claims.reversed_measures(measured(**expected)).outcome == "does not hold"
    turned = near(0.5, 3) * by("architecture", resnet18=1, wrn28_10=1, wrn34_10=-1)
    verdict = claims.reversed_measures(measured(**expected, pacbayes_flat=turned))
    assert verdict.outcome == "holds"
    assert "lowest for pacbayes_flat where architecture=wrn34_10" in verdict.detail
    assert "clearly reversed somewhere: pacbayes_flat" in verdict.detail
    assert verdict.n == (study({}, GRID)["architecture"] == "wrn34_10").sum()
    weak = claims.reversed_measures(measured(average_flat=noise(4, GRID)))
    assert (weak.outcome, weak.n > 0) == ("undecided", True)
    # nobody claims a sign for a measure from outside, nor is a gradient norm in this claim
    nothing = claims.reversed_measures(measured(mine=-GAP, x_grad_norm=GAP))
    assert (nothing.outcome, nothing.n) == ("undecided", 0)


def test_only_signs_that_authors_state_can_be_reversed() -> None:
    """Of the article's margin measures two have a sign that is only inferred here."""
    inferred = claims.reversed_measures(measured(average_ce=GAP, prob_margin=-GAP))
    assert (inferred.outcome, inferred.n) == ("undecided", 0)
    assert "a sign that its authors state" in inferred.detail
    assert claims.reversed_measures(measured(inverse_margin=-GAP)).outcome == "holds"


def test_a_reversal_within_a_method_rests_on_the_trainings_there() -> None:
    """Four trainings in perfect disorder are no proof, however many the study has elsewhere."""
    gap = noise(0, SMALL)
    turned = np.where(study({}, SMALL)["method"] == "at", -gap, gap)
    data = sample(study({"average_flat": turned}, SMALL, gap=gap))
    verdict = claims.reversed_measures(coefficients(data, draws=200))
    assert verdict.value == -1
    assert verdict.outcome == "undecided"


def test_a_range_over_methods_is_rarely_called_wide_by_chance() -> None:
    """Nothing goes with the gap, eight trainings by each method: at most 5 % of studies."""
    generator, wrong, repeats = np.random.default_rng(0), 0, 200
    methods, trainings, measures = 3, 8, 16
    training = np.repeat(np.arange(methods * trainings), 2)  # best and last checkpoint
    rows = [training // trainings == method for method in range(methods)]

    def component(columns: int) -> np.ndarray:
        shared = generator.normal(size=(training.max() + 1, columns))[training]
        return shared + generator.normal(size=(len(training), columns))

    for repeat in range(repeats):
        gap, x = component(1)[:, 0], component(measures)
        weights = bootstrap_weights(methods * trainings, 200, repeat)
        taus = [weighted_tau(x[r], gap[r], training[r], weights) for r in rows]
        wrong += claims._wide(np.stack(taus), np.full((methods, measures), trainings)).any()
    assert wrong / repeats <= 0.05


@pytest.mark.parametrize("claim", [claims.defense_matters, claims.reversed_measures])
def test_a_method_without_adversary_need_not_be_named_standard(
    claim: Callable[[Coefficients], claims.Verdict],
) -> None:
    """It has no steps: that is what tells it from a defense, whatever its name."""
    turned = GAP * by("method", standard=-1, at=1, trades=1, mart=1) + 0.1 * noise(1, GRID)
    table = study({"boundary_thickness": turned, "average_flat": turned}, GRID, gap=GAP)
    renamed = table.assign(method=table["method"].replace("standard", "zero"))
    verdicts = [claim(coefficients(sample(t), draws=200)) for t in (table, renamed)]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].outcome == "does not hold"


def test_gradient_norm() -> None:
    leads = near(1.5, 1)
    awp = by("optimizer", sgd=0, awp=1) == 1
    leads[awp] = GAP[awp]  # perfect, but only with awp
    rivals = {"a": near(0.7, 2), "b": noise(3, GRID)}
    verdict = claims.gradient_norm(measured(x_grad_norm=leads, **rivals))
    assert verdict.outcome == "holds"
    assert "optimizer=awp" in verdict.detail
    behind = measured(x_grad_norm=noise(4, GRID), **rivals)
    assert claims.gradient_norm(behind).outcome == "does not hold"
    even = measured(x_grad_norm=near(0.7, 5), **rivals)
    assert claims.gradient_norm(even).outcome == "undecided"
    assert claims.gradient_norm(measured(**rivals)).detail == "x_grad_norm was not measured"


def test_gradient_norm_interval_is_at_95_percent_over_all_conditions() -> None:
    """Two-sided, Bonferroni over six conditions, with Student's distribution for the trainings."""
    axes = ("early_stopping", "extra_data", "optimizer")
    result = measured(axes, x_grad_norm=near(0.7, 5), a=near(0.7, 2))
    verdict = claims.gradient_norm(result)
    reaches = {}
    for level, tau in result.within.items():
        lead = abs(tau[:, 0]) - abs(tau[:, 1])
        n = result.trainings_within[level][0]
        factor = math.sqrt(n / (n - 1)) * stdtrit(n - 1, 1 - 0.05 / 12)
        reaches[lead[0]] = factor * lead[1:].std(ddof=1)
    assert len(reaches) == 6
    best = max(reaches)
    assert verdict.value == best
    assert verdict.low == pytest.approx(best - reaches[best])
    assert verdict.high == pytest.approx(best + reaches[best])


def test_simultaneous_intervals_cover_together() -> None:
    """k means of n normal numbers, each with its bootstrap's error (the variance over n, not
    n - 1): all k intervals hold the truth with probability (1 - 0.05 / k) ** k."""
    k, n, repeats = 8, 6, 4000
    values = np.random.default_rng(0).normal(size=(repeats, k, n))
    estimates, errors = values.mean(axis=2), values.std(axis=2) / math.sqrt(n)
    reach = np.array([intervals.simultaneous_reach(error, n, 0.95) for error in errors])
    covered = (abs(estimates) < reach).all(axis=1).mean()
    assert covered == pytest.approx((1 - 0.05 / k) ** k, abs=0.012)


def test_a_near_identical_measure_is_no_rival() -> None:
    result = measured(x_grad_norm=near(0.2, 1), twin=near(0.2, 1) * 2, a=noise(2, GRID))
    assert claims.gradient_norm(result).outcome == "undecided"
    assert claims.gradient_norm(result, [["twin", "x_grad_norm"]]).outcome == "holds"


def ranking(strengths: list[float], seed: int) -> pd.DataFrame:
    gap = noise(seed, GRID)
    return study(
        {f"m{k}": s * gap + noise(seed + k + 1, GRID) for k, s in enumerate(strengths)},
        GRID, gap=gap,
    )  # fmt: skip


def test_carries_over() -> None:
    strengths = [-3, -2, -1, -0.5, 0, 0.5, 1, 2, 3]
    same = compare(ranking(strengths, 0), ranking(strengths, 50), draws=200, names=("x", "y"))
    verdict = claims.carries_over(same)
    assert verdict.outcome == "holds"
    assert verdict.value > 0.8
    assert same.frame["same_sign"].sum() >= 7
    turned = compare(ranking(strengths, 0), ranking(strengths[::-1], 50), draws=200)
    assert claims.carries_over(turned).outcome == "does not hold"
    few = compare(ranking([-1, 1, 2], 0), ranking([-1, 1, 2], 50), draws=50)
    assert claims.carries_over(few).outcome == "undecided"
    assert claims.carries_over(None).outcome == "undecided"
    with pytest.raises(ValueError, match="'x' and 'y' have no measure in common"):
        compare(
            ranking([1], 0),
            ranking([1], 0).rename(columns={"measure/m0": "measure/other"}),
            names=("x", "y"),
        )


def test_user_claims_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(
        """
- {measure: m, sign: "+"}
- {measure: m, sign: "-", name: The opposite}
- measure: m
  sign: 1
  min_abs_tau: 0.5
  where: {method: [at, trades], batch_size: 64, early_stopping: true}
- {measure: weak, sign: "+"}
- {measure: m, sign: "+", min_abs_tau: 0.9}
"""
    )
    table = study({"m": near(0.3, 1), "weak": noise(2, GRID)}, GRID, gap=GAP)
    verdicts = [check_claim(table, claim, draws=100) for claim in read_claims(path)]
    outcomes = [verdict.outcome for verdict in verdicts]
    assert outcomes == ["holds", "does not hold", "holds", "undecided", "does not hold"]
    assert verdicts[1].statement == "The opposite"
    assert "method is at or trades and batch_size is 64 and" in verdicts[2].statement
    chosen = table.query("method in ('at', 'trades') and batch_size == 64 and early_stopping")
    assert verdicts[2].n == len(chosen)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("measure: m", "must hold a list of claims"),
        ("- m", "claim 1 is not a mapping"),
        ("- {sign: '+'}", "claim 1 has no 'measure'"),
        ("- {measure: m, sign: up}", "sign='up' is not valid; choose from"),
        ("- {measure: m, sign: '+', wher: {}}", "unknown key 'wher'; keys: measure, sign"),
        ("- {measure: m, sign: '+', min_abs_tau: 2}", "min_abs_tau=2 must be a number from 0 to 1"),
        ("- {measure: m, sign: '+', where: at}", "where must map axes to levels"),
        ("- [", "is not YAML"),
    ],
)
def test_bad_claims_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words.replace("[", r"\[")):
        read_claims(path)


def test_claims_about_what_is_not_there() -> None:
    table = study({"m": near(0.3, 1)}, GRID, gap=GAP)
    for claim, words in (
        (Claim(measure="n", sign=1), "'n': no such measure; choose from: m"),
        (Claim(measure="m", sign=1, where={"colour": ("red",)}), "'colour' is no axis"),
        (Claim(measure="m", sign=1, where={"method": ("fat",)}), "no model has method=fat"),
        (Claim(measure="m", sign=1, target="aa_gap"), "no target 'aa_gap'"),
    ):
        with pytest.raises(ValueError, match=words):
            check_claim(table, claim, draws=5)
    with pytest.raises(ValueError, match="there is no file of claims"):
        read_claims(Path("nowhere.yaml"))
