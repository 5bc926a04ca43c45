"""Products over the layers of norms of their weights, as sums of logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence

from measures.engine.context import Context, LayerNorm, Weights


def log_prod(context: Context, *, norm: LayerNorm, weights: Weights) -> float:
    """Σ_l log ‖W_l‖², over convolutions, linear and diagonal (unfolded batch-norm) layers.
    Dziugaite et al., NeurIPS 2020, eq. 32 (spectral) and 37 (Frobenius).

    ``raw``: the convolutions as stored, whose scale batch-norm undoes. Grows with depth: compare
    within an architecture. Spectral: orthogonal layers give 0; Frobenius: c·I_n gives log c²n.
    """
    return sum(log_squares(context.layer_norms(weights, norm)))


def log_prod_over_margin(context: Context, *, norm: LayerNorm) -> float:
    """Σ_l log ‖W_l‖² - 2 log γ, γ the 10th percentile of the margin on the PGD examples.
    Dziugaite et al., NeurIPS 2020, eq. 31 (spectral) and 36 (Frobenius). Undefined for γ <= 0.
    """
    return (
        sum(log_squares(context.layer_norms("folded", norm))) - 2 * context.adversarial.log_margin
    )


def log_sum(context: Context, *, norm: LayerNorm) -> float:
    """log d + (1/d) Σ_l log ‖W_l‖², for d layers: the product without the growth with depth.
    Dziugaite et al., NeurIPS 2020, eq. 35 (spectral) and 39 (Frobenius).
    """
    logs = log_squares(context.layer_norms("folded", norm))
    return math.log(len(logs)) + sum(logs) / len(logs)


def log_sum_over_margin(context: Context, *, norm: LayerNorm) -> float:
    """log d + (1/d) (Σ_l log ‖W_l‖² - 2 log γ), γ as for ``log_prod_over_margin``.
    Dziugaite et al., NeurIPS 2020, eq. 34 (spectral) and 38 (Frobenius). Undefined for γ <= 0.
    """
    logs = log_squares(context.layer_norms("folded", norm))
    return math.log(len(logs)) + (sum(logs) - 2 * context.adversarial.log_margin) / len(logs)


def log_squares(norms: Sequence[float]) -> list[float]:
    """-inf for a layer of zeros, which makes the value infinite and so undefined."""
    return [2 * math.log(norm) if norm > 0 else -math.inf for norm in norms]
