"""Sharpness estimated by one ascent step in the weights, as sharpness-aware minimisation does."""

from __future__ import annotations

import torch
from torch import Tensor

from measures.engine.context import Context, On, trainable
from measures.engine.measure import Undefined
from measures.engine.weight_noise import FlatWeights, mean_loss


def estimated_sharpness(context: Context, *, on: On, rho: float = 0.05) -> float:
    """L(w + ρ g/‖g‖) - L(w) with g = ∇L(w), L the mean cross-entropy on fixed examples.
    Foret et al., ICLR 2021 (SAM), eq. 2; quadratic ½wᵀAw: ρ‖g‖ + ½ρ²gᵀAg/‖g‖².

    One step on the whole set (not m-sharpness); all trainable parameters, batch norm's too.
    """
    weights = FlatWeights(context.model, trainable(context.model))
    return loss_gain(context, on, weights, torch.ones_like(weights.vector), rho)


def estimated_inv_sharpness(
    context: Context, *, on: On, rho: float = 0.5, eta: float = 0.01
) -> float:
    """L(w + ρT²g/‖Tg‖) - L(w) with T = |w| + η, so that rescaling the layers changes nothing.
    Kwon et al., ICML 2021 (ASAM); linear loss: ρ‖Tg‖.

    "inv" is read as scale-invariant: a reciprocal would rank models like ``estimated_sharpness``.
    As in ASAM, T is |w| + η for weights (batch norm's scale too) and 1 for biases and shifts.
    """
    weights = FlatWeights(context.model, trainable(context.model))
    is_weight = weights.per_layer(float(name.endswith("weight")) for name in weights.names)
    scale = torch.where(is_weight > 0, weights.vector.abs() + eta, 1.0)
    return loss_gain(context, on, weights, scale, rho)


def loss_gain(context: Context, on: On, weights: FlatWeights, scale: Tensor, rho: float) -> float:
    """L(w + ρT²g/‖Tg‖) - L(w), T diagonal with entries ``scale``."""
    data = context.on(on)
    gradient = scale * weights.flat(data.weight_gradient)
    length = gradient.norm()
    if length == 0:
        raise Undefined("the weight gradient is zero, so there is no direction of ascent")
    moved = weights.moved(scale * gradient * (rho / length))
    return mean_loss(context, moved, data.images, data.labels) - float(
        data.cross_entropy.double().mean()
    )
