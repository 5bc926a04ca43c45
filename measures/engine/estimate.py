"""Means of random draws, with honest standard errors."""

from __future__ import annotations

import math

from scipy.stats import norm
from scipy.stats import t as student_t
from torch import Tensor

from measures.engine.measure import Estimate

NORMAL_COVERAGE_OF_TWO = float(norm.cdf(2))  # one-sided


def over_draws(values: Tensor) -> Estimate:
    """Mean of independent draws ``(D,)``, each a whole value of the measure. D = 1: no error."""
    values = values.double().flatten()
    return Estimate(float(values.mean()), standard_error(values))


def standard_error(values: Tensor) -> float:
    """Of the mean of independent draws; NaN for a single one.

    Widened for few draws so that ± 2 standard errors always cover 95.4 %, as for many: the
    scatter is itself estimated, and Student's t is wider than the normal distribution.
    """
    if len(values) < 2:
        return math.nan
    widening = float(student_t.ppf(NORMAL_COVERAGE_OF_TWO, len(values) - 1)) / 2
    return widening * float(values.std()) / math.sqrt(len(values))


def over_examples(values: Tensor) -> Estimate:
    """Mean of ``(N, R)``: R independent draws for each of N fixed examples.

    The error is that of the draws given the images: it comes from the scatter within each
    example, not between them, so R = 1 gives none.
    """
    values = values.double()
    count, draws = values.shape
    se = math.nan
    if draws > 1:
        se = float((values.var(dim=1) / draws).sum().sqrt()) / count
    return Estimate(float(values.mean()), se)
