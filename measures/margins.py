"""Margins: how far the true class is ahead, in logits or in probabilities."""

from __future__ import annotations

import torch

from defenses.attacks.losses import margin
from measures.engine.context import Context, On
from measures.engine.measure import Undefined


def margin_percentile(context: Context, *, on: On, percent: int) -> float:
    """A percentile of the margin z_y - max_{j≠y} z_j, signed: negative where models err.
    Jiang et al., ICLR 2020, whose margin is the 10th percentile.
    """
    return float(torch.quantile(context.on(on).margins.double(), percent / 100))


def inverse_margin(context: Context, *, on: On, percent: int = 10) -> float:
    """1/γ², where γ is the 10th percentile of the margin z_y - max_{j≠y} z_j.
    Jiang et al., ICLR 2020; Dziugaite et al., NeurIPS 2020, eq. 22.

    Undefined for γ <= 0, which on adversarial examples is every model with less than 90 %
    robust train accuracy: 1/γ² would rank a margin of -1 like one of +1. ``margin_p10`` is the
    same quantity without that hole.
    """
    gamma = margin_percentile(context, on=on, percent=percent)
    if gamma <= 0:
        raise Undefined(f"percentile {percent} of the margin is not positive ({gamma:.3g})")
    return gamma**-2


def prob_margin(context: Context, *, on: On) -> float:
    """Mean of p_y - max_{j≠y} p_j, in [-1, 1].
    Kim et al., NeurIPS 2023 ("prob_margin"); two classes: mean of tanh((z_y - z_j)/2).
    """
    data = context.on(on)
    return float(margin(data.logits.double().softmax(dim=1), data.labels).mean())
