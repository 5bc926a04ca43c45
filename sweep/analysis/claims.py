"""The five findings of the article, as fixed in advance, tested on the study at hand.

Kim, Park, Choi & Lee (NeurIPS 2023). Each verdict comes with the number it rests on, its
interval and the number of models. How each is decided: ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sweep.analysis import intervals
from sweep.analysis.comparison import Comparison
from sweep.analysis.correlation import Coefficients
from sweep.analysis.expectations import ARTICLE, family, is_control, stated_sign
from sweep.analysis.table import Bools, Floats, Ints
from sweep.analysis.wording import count, interval, listed, signed
from sweep.axes import level_name

Outcome = Literal["holds", "does not hold", "undecided"]

_MARGIN = ("inverse_margin", "prob_margin", "average_ce")
_PERFECT = 0.9
_RANGE = 0.3
_TOP = 3
_LEVEL = 0.05
_CONDITIONS = ("early_stopping", "extra_data", "augmentation", "optimizer")


@dataclass(frozen=True)
class Verdict:
    """``value`` with its interval ``low`` to ``high`` is what decides; it rests on ``n`` models."""

    statement: str
    outcome: Outcome
    value: float
    low: float
    high: float
    n: int
    detail: str


def article_claims(
    result: Coefficients,
    *,
    identical: Sequence[Sequence[str]] = (),
    comparison: Comparison | None = None,
) -> list[Verdict]:
    """The verdicts on the article's five findings.

    ``identical``: groups of near-identical measures, which are no rivals of each other.
    ``comparison``: with the study that the ranking of measures should carry over to.
    """
    return [
        no_perfect_measure(result),
        defense_matters(result),
        reversed_measures(result),
        gradient_norm(result, identical),
        carries_over(comparison),
    ]


def no_perfect_measure(result: Coefficients) -> Verdict:
    """Holds if every interval of |tau| stays below 0.9, fails if one lies above entirely.

    Controls (train accuracy) are no measures in this sense.
    """
    statement = "No perfect measure: no interval of |τ| reaches 0.9."
    controls = [is_control(name) for name in result.sample.measures]
    low, high = intervals.percentile(
        np.where(controls, np.nan, result.tau[1:]), 1 - _LEVEL, result.trainings
    )
    reach = np.fmax(np.abs(low), np.abs(high))
    floor = np.where(low * high > 0, np.fmin(np.abs(low), np.abs(high)), 0)
    if np.isnan(reach).all():
        return _undecided(statement, "no measure has a τ")
    top = int(np.nanargmax(reach))
    outcome: Outcome = "undecided"
    if np.nanmax(reach) < _PERFECT:
        outcome = "holds"
    elif np.nanmax(floor) >= _PERFECT:
        outcome = "does not hold"
        top = int(np.nanargmax(floor))
    detail = f"{result.sample.measures[top]} comes closest"
    estimate = abs(float(result.tau[0, top]))
    return Verdict(
        statement, outcome, estimate, float(floor[top]), float(reach[top]), _n(result, top), detail
    )


def defense_matters(result: Coefficients) -> Verdict:
    """Two parts: some range over methods exceeds 0.3; boundary_thickness is in the top three.

    The range of a measure is that of its tau within each method with inner maximisation. It
    counts if it exceeds 0.3 and the difference between the two extreme methods differs from 0,
    Bonferroni-corrected over the pairs of methods and Holm-corrected over the measures. Controls
    (train accuracy) are no measures in either part. The top three are those of the article's own
    measures; where no more than three of them have a range, of all measures of the table.
    """
    statement = (
        "The defense matters: the range over methods of τ within a method exceeds 0.3, "
        "and boundary_thickness is among the three largest of the article's measures."
    )
    methods = [key for key in result.within if key[0] == "method" and not _standard(result, key)]
    if len(methods) < 2:
        return _undecided(statement, "fewer than two methods with inner maximisation")
    measures = result.sample.measures
    draws = np.stack([result.within[key] for key in methods])
    draws = np.where([is_control(m) for m in measures], np.nan, draws)
    trainings = np.stack([result.trainings_within[key] for key in methods])
    spread = _range(draws)
    usable = ~np.isnan(spread[0])
    if not usable.any():
        return _undecided(statement, "no measure has a τ within every method")
    wide = _wide(draws, trainings) & (spread[0] > _RANGE)
    low, high = intervals.percentile(spread[1:], 1 - _LEVEL, trainings.min(axis=0))
    name = "boundary_thickness"
    detail = (
        f"{int(wide.sum())} of {count(int(usable.sum()), 'measure')} (controls left out) "
        f"{'has' if wide.sum() == 1 else 'have'} such a range"
    )
    some: Outcome = "holds" if wide.any() else "undecided"
    if np.nanmax(high) < _RANGE:
        some = "does not hold"
    if name not in measures or not usable[measures.index(name)]:
        top = int(np.nanargmax(spread[0]))
        outcome: Outcome = "does not hold" if some == "does not hold" else "undecided"
        detail += f", {measures[top]} the largest; boundary_thickness was not measured"
    else:
        top = measures.index(name)
        leads, place = _among_the_largest(spread, top, [m in ARTICLE for m in measures])
        parts: set[Outcome] = {some, leads}
        outcome = next(o for o in ("does not hold", "undecided", "holds") if o in parts)
        detail += f"; boundary_thickness has {place}"
    value, n = float(spread[0, top]), _n(result, top, *methods)
    return Verdict(statement, outcome, value, float(low[top]), float(high[top]), n, detail)


def _among_the_largest(spread: Floats, own: int, article: Sequence[bool]) -> tuple[Outcome, str]:
    """Whether column ``own`` of ``spread`` (1 + D, M) is in the top three, and its place in words.

    Among the columns of the ``article``; among all that have a value where those are too few to
    have a fourth. A place among three or fewer tells nothing.
    """
    usable = ~np.isnan(spread[0])
    ours = usable & np.array(article)
    only_article = int(ours.sum()) > _TOP
    ranked = np.flatnonzero(ours if only_article else usable)
    order = ranked[np.argsort(-np.nan_to_num(spread[:, ranked], nan=-1.0), axis=1)]
    place = int(np.flatnonzero(order[0] == own)[0]) + 1
    whom = (
        f"the {len(ranked)} of the article's {len(ARTICLE)} measures that have a range"
        if only_article
        else f"{count(len(ranked), 'measure')}, as only {int(ours.sum())} of the article's "
        f"{len(ARTICLE)} {'has' if ours.sum() == 1 else 'have'} a range"
    )
    if len(ranked) <= _TOP:
        return "undecided", f"place {place} among {whom}: too few to tell"
    inside = float((order[1:, :_TOP] == own).any(axis=1).mean())
    share = f"is among the three largest in {inside:.0%} of resamples"
    return _by_share(inside), f"place {place} among {whom}, and {share}"


def reversed_measures(result: Coefficients) -> Verdict:
    """Holds if some tau within an architecture or method is clearly opposite to expectation.

    Only what the measure's own authors expect can be reversed, not a sign that was inferred here.
    Clearly: p < 0.05, Holm-corrected over all (measure, level) looked at. Fails if every one of
    them has the expected sign with an interval that excludes 0.
    """
    statement = (
        "Reversed: margin or flatness measures have, within an architecture or method, "
        "the sign opposite to the one that their authors expect."
    )
    measures = result.sample.measures
    looked = [
        (name, key, draws[:, own] * sign, result.trainings_within[key][own])
        for own, name in enumerate(measures)
        if (sign := _believed(name)) is not None
        for key, draws in result.within.items()
        if key[0] in ("architecture", "method") and not _standard(result, key)
    ]
    looked = [entry for entry in looked if not np.isnan(entry[2][0])]
    if not looked:
        reason = "no such measure, with a sign that its authors state, has a τ within a level"
        return _undecided(statement, reason)
    draws = np.stack([entry[2] for entry in looked], axis=1)
    trainings = np.array([entry[3] for entry in looked])
    p = intervals.holm(intervals.p_values(draws[0], draws[1:], intervals.kendall_error(trainings)))
    low, high = intervals.percentile(draws[1:], 1 - _LEVEL, trainings)
    opposite = (draws[0] < 0) & (p < _LEVEL)
    outcome: Outcome = "holds" if opposite.any() else "undecided"
    if (low > 0).all():
        outcome = "does not hold"
    worst = int(np.argmin(draws[0]))
    name, key, *_ = looked[worst]
    names = sorted({looked[k][0] for k in np.flatnonzero(opposite)})
    detail = (
        f"expected sign times τ is lowest for {name} where {'='.join(key)}; "
        + (f"clearly reversed somewhere: {listed(names)}" if names else "none is clearly reversed")
        + f" ({count(len(looked), 'combination')} looked at)"
    )
    value, n = float(draws[0, worst]), _n(result, measures.index(name), key)
    return Verdict(statement, outcome, value, float(low[worst]), float(high[worst]), n, detail)


def gradient_norm(result: Coefficients, identical: Sequence[Sequence[str]] = ()) -> Verdict:
    """Holds if x_grad_norm leads in some condition, Bonferroni-corrected over the conditions.

    The lead is |tau| of x_grad_norm minus the largest |tau| of any other measure that is not in
    its group of near-identical ones. Fails if that interval is below 0 in every condition. The
    intervals of all conditions hold together at 95 %.
    """
    statement = (
        "Input gradient norm: x_grad_norm has the largest |τ| in some condition of early "
        "stopping, extra data, augmentation or optimizer."
    )
    measures, name = result.sample.measures, "x_grad_norm"
    conditions = [key for key in result.within if key[0] in _CONDITIONS]
    if name not in measures or not conditions:
        missing = "x_grad_norm was not measured" if name not in measures else "no such condition"
        return _undecided(statement, missing)
    own = measures.index(name)
    group = next((g for g in identical if name in g), [name])
    rivals = [m for m, o in enumerate(measures) if o not in group and not is_control(o)]
    if not rivals:
        return _undecided(statement, "there is no other measure")
    strength = np.abs(np.stack([result.within[key] for key in conditions], axis=-1))
    lead = strength[:, own] - np.nanmax(np.nan_to_num(strength[:, rivals]), axis=1)
    if np.isnan(lead[0]).all():
        return _undecided(statement, "x_grad_norm is undefined in every condition")
    trainings = np.array([result.trainings_within[key][own] for key in conditions])
    error = np.nanstd(lead[1:], axis=0, ddof=1)
    reach = intervals.simultaneous_reach(error, trainings, 1 - _LEVEL)
    outcome: Outcome = "undecided"
    if (lead[0] - reach > 0).any():
        outcome = "holds"
    elif (lead[0] + reach < 0).all():
        outcome = "does not hold"
    best = int(np.nanargmax(lead[0]))
    led = [f"{axis}={level}" for (axis, level), d in zip(conditions, lead[0], strict=True) if d > 0]
    detail = (
        f"lead over the strongest other measure where {'='.join(conditions[best])}; "
        + (f"it leads where {listed(led)}" if led else "it leads in no condition")
        + f", of {len(conditions)}"
    )
    value, wide = float(lead[0, best]), float(reach[best])
    n = _n(result, own, conditions[best])
    return Verdict(statement, outcome, value, value - wide, value + wide, n, detail)


def carries_over(comparison: Comparison | None) -> Verdict:
    """Holds if tau between the measures' tau on two studies is positive, interval above 0."""
    statement = "Carries over: measures rank alike on another study."
    if comparison is None:
        return _undecided(statement, "needs a second study to compare with")
    c = comparison
    detail = f"{c.a} against {c.b}: {c.sentence}"
    return Verdict(statement, _outcome(c.verdict), c.tau, c.low, c.high, len(c.frame), detail)


def evidence(verdict: Verdict) -> str:
    """Number, interval and count in words."""
    if np.isnan(verdict.value):
        return "–"
    return f"{signed(verdict.value)} ({interval(verdict.low, verdict.high)}), n = {verdict.n:,}"


def _believed(name: str) -> int | None:
    """The sign that authors state, of the article's margin measures and of all of flatness."""
    chosen = name in _MARGIN or family(name) == "flatness"
    return stated_sign(name) if chosen else None


def _standard(result: Coefficients, key: tuple[str, str]) -> bool:
    """Whether a level (axis, name) is a method without inner maximisation."""
    return key[0] == "method" and bool(result.sample.standard[_rows(result, key)].all())


def _rows(result: Coefficients, key: tuple[str, str]) -> Bools:
    axis, name = key
    levels = [level_name(level) for level in result.sample.levels[axis]]
    return np.asarray(result.sample.codes[axis] == levels.index(name))


def _range(draws: Floats) -> Floats:
    """Largest minus smallest along the first axis; NaN where one is missing."""
    return np.asarray(draws.max(axis=0) - draws.min(axis=0))


def _wide(draws: Floats, trainings: Ints) -> Bools:
    """Where the two extreme methods differ from each other, corrected.

    ``draws`` (methods, 1 + D, M) of tau within each, which rests on ``trainings`` (methods, M).
    """
    methods, columns = len(draws), np.arange(draws.shape[2])
    filled = np.nan_to_num(draws)
    highest, lowest = filled[:, 0].argmax(axis=0), filled[:, 0].argmin(axis=0)
    difference = draws[highest, :, columns] - draws[lowest, :, columns]  # (M, 1 + D)
    square = np.square(intervals.kendall_error(trainings))
    least = np.sqrt(square[highest, columns] + square[lowest, columns])
    p = intervals.p_values(difference[:, 0], difference[:, 1:].T, least)
    p = np.minimum(p * methods * (methods - 1) / 2, 1)
    return np.asarray(intervals.holm(p) < _LEVEL)


def _by_share(share: float) -> Outcome:
    if share >= 1 - _LEVEL:
        return "holds"
    return "does not hold" if share <= _LEVEL else "undecided"


def _outcome(text: str) -> Outcome:
    outcomes: Iterable[Outcome] = ("holds", "does not hold", "undecided")
    return next(outcome for outcome in outcomes if outcome == text)


def _n(result: Coefficients, measure: int, *levels: tuple[str, str]) -> int:
    """Models of which measure and target are known, at any of ``levels`` (none given: at all)."""
    known = ~np.isnan(result.sample.x[:, measure]) & ~np.isnan(result.sample.y)
    if levels:
        known &= np.any([_rows(result, key) for key in levels], axis=0)
    return int(known.sum())


def _undecided(statement: str, reason: str) -> Verdict:
    return Verdict(statement, "undecided", np.nan, np.nan, np.nan, 0, reason)
