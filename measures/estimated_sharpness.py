"""Sharpness estimated by one ascent step in the weights, as sharpness-aware minimisation does."""

from __future__ import annotations

import torch
from torch import Tensor

from measures.engine.context import Context, On, trainable
from measures.engine.measure import Undefined
from measures.engine.weight_noise import mean_loss


def estimated_sharpness(context: Context, *, on: On, rho: float = 0.05) -> float:
    """L(w + ρ g/‖g‖) - L(w) with g = ∇L(w), L the mean cross-entropy on fixed examples.
    Foret et al., ICLR 2021 (SAM), eq. 2; quadratic ½wᵀAw: ρ‖g‖ + ½ρ²gᵀAg/‖g‖².

    One step on the whole set (not m-sharpness); all trainable parameters, batch norm's too.
    """
    gradient = context.on(on).weight_gradient
    return loss_gain(context, on, gradient, dict.fromkeys(gradient, 1.0), rho)


def estimated_inv_sharpness(
    context: Context, *, on: On, rho: float = 0.5, eta: float = 0.01
) -> float:
    """L(w + ρT²g/‖Tg‖) - L(w) with T = |w| + η, so that rescaling the layers changes nothing.
    Kwon et al., ICML 2021 (ASAM), eq. 5 and algorithm 1; linear loss: ρ‖Tg‖.

    "inv" is read as scale-invariant: a reciprocal would rank models like ``estimated_sharpness``.
    As in ASAM, T is |w| + η for weights (batch norm's scale too) and 1 for biases and shifts.
    """
    scales = {
        name: w.detach().abs() + eta if name.endswith("weight") else 1.0
        for name, w in trainable(context.model).items()
    }
    return loss_gain(context, on, context.on(on).weight_gradient, scales, rho)


def loss_gain(
    context: Context,
    on: On,
    gradient: dict[str, Tensor],
    scales: dict[str, Tensor | float],
    rho: float,
) -> float:
    """L(w + ρT²g/‖Tg‖) - L(w), T diagonal, given by ``scales``."""
    scaled = {name: scales[name] * g for name, g in gradient.items()}
    norm = torch.stack([g.double().pow(2).sum() for g in scaled.values()]).sum().sqrt()
    if norm == 0:
        raise Undefined("the weight gradient is zero, so there is no direction of ascent")
    weights = trainable(context.model)
    moved = {
        name: weights[name].detach() + scales[name] * g * float(rho / norm)
        for name, g in scaled.items()
    }
    data = context.on(on)
    return mean_loss(context, data, moved) - float(data.cross_entropy.double().mean())
