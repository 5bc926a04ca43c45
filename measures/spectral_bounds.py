"""The data-dependent parts of spectrally normalised margin bounds."""

from __future__ import annotations

import math

from measures.distance_from_init import layer_pairs
from measures.engine.context import Context
from measures.engine.measure import Undefined
from measures.weight_totals import both_norms


def log_spec_init_main(context: Context) -> float:
    """Σ_l log ‖W_l‖₂² - 2 log γ + log Σ_l ‖W_l - W_l⁰‖_F²/‖W_l‖₂², γ as in ``inverse_margin``.
    Dziugaite et al., NeurIPS 2020, eq. 29. Undefined for γ <= 0, and for unmoved weights.
    """
    moved = [
        float((now.weight - then.weight).double().pow(2).sum())
        for now, then in layer_pairs(context, "folded")
    ]
    return log_bound(context, moved)


def log_spec_orig_main(context: Context) -> float:
    """Σ_l log ‖W_l‖₂² - 2 log γ + log Σ_l ‖W_l‖_F²/‖W_l‖₂², γ as in ``inverse_margin``.
    Dziugaite et al., NeurIPS 2020, eq. 30. Undefined for γ <= 0.
    """
    return log_bound(context, [f**2 for f, _ in both_norms(context)])


def log_bound(context: Context, squares: list[float]) -> float:
    spectral = [s for _, s in both_norms(context)]
    ranks = sum(square / s**2 for square, s in zip(squares, spectral, strict=True))
    if ranks == 0:
        raise Undefined("the weights are those before training, so there is no distance")
    return (
        2 * sum(math.log(s) for s in spectral)
        - 2 * context.adversarial.log_margin
        + math.log(ranks)
    )
