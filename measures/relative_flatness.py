"""Curvature of the loss in the last layer, in closed form."""

from __future__ import annotations

from measures.engine.context import Context, On


def relative_flatness(context: Context, *, on: On) -> float:
    """κ = Σ_{s,s'} ⟨w_s, w_s'⟩ tr H_{s,s'} at the last layer, w_s its rows, H of the mean CE.
    Petzka, Kamp, Adilova, Sminchisescu & Boley, NeurIPS 2021 (relative flatness).

    For the last layer under cross-entropy exactly E ‖φ‖² (Σ p_s‖w_s‖² - ‖Σ p_s w_s‖²).
    """
    data = context.on(on)
    rows = context.head.weight.detach().double()
    p = data.logits.double().softmax(dim=1)
    spread = p @ rows.pow(2).sum(dim=1) - (p @ rows).pow(2).sum(dim=1)
    return float((data.features.double().pow(2).sum(dim=1) * spread).mean())


def last_layer_trace(context: Context, *, on: On) -> float:
    """Trace of the Hessian of the mean CE by the last layer's weights: E ‖φ‖² (1 - ‖p‖²).
    Closed form of the last block of the Hessian; compare ``hessian_trace``.
    """
    data = context.on(on)
    p = data.logits.double().softmax(dim=1)
    return float((data.features.double().pow(2).sum(dim=1) * (1 - p.pow(2).sum(dim=1))).mean())
