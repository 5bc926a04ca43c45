"""Means of random draws, with honest standard errors."""

from __future__ import annotations

import math

from torch import Tensor

from measures.engine.measure import Estimate


def over_draws(values: Tensor) -> Estimate:
    """Mean of independent draws ``(D,)``, each a whole value of the measure. D = 1: no error."""
    values = values.double().flatten()
    se = math.nan if len(values) < 2 else float(values.std()) / math.sqrt(len(values))
    return Estimate(float(values.mean()), se)


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
