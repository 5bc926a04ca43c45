"""Worst-case flatness of the robust loss: weights and images attacked together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.attacks.threat import geometry
from measures.engine.context import Context
from measures.engine.weight_noise import At, FlatWeights, linear_weight_names


def worst_case_flat(
    context: Context,
    *,
    radius: float = 0.003,
    steps: int = 20,
    step_share: float = 0.25,
    restarts: int = 2,
    examples: int = 128,
) -> float:
    """max_ν max_δ L(x+δ; w+ν) - max_δ L(x+δ; w), ‖ν_l‖ <= ξ‖w_l‖ in every layer.
    Stutz, Hein & Schiele, ICCV 2021 (worst-case flatness).

    Joint ascent on δ (steps of the threat) and ν (steps of ``step_share``·ξ‖w_l‖ along each
    layer's gradient), one ν for all examples; the largest of all iterates and restarts counts,
    so the value is a lower bound. Layers as in ``average_flat``. The authors use 10 restarts.
    """
    images, labels = context.images[:examples], context.labels[:examples]
    weights = FlatWeights(context.model, linear_weight_names(context.model, biases=True))
    radii = radius * weights.layer_norms(weights.vector)
    # From the same starts with and without weight noise, so that their luck cancels.
    with_noise, without = (
        max(
            joint_ascent(context, weights, r, images, labels, steps, step_share, restart)
            for restart in range(restarts)
        )
        for r in (radii, torch.zeros_like(radii))
    )
    return with_noise - without


def joint_ascent(
    context: Context,
    weights: FlatWeights,
    radii: Tensor,
    images: Tensor,
    labels: Tensor,
    steps: int,
    step_share: float,
    restart: int,
) -> float:
    """The largest mean loss met on the way up from a random ν on the spheres and a random δ."""
    ball, threat = geometry(context.threat.norm), context.threat
    noise = weights.noise(context.generator("worst_case_flat weights", restart))
    step = noise * weights.per_layer(radii / weights.layer_norms(noise).clamp_min(1e-12))
    stream = context.generator("worst_case_flat images", restart)
    x_adv = ball.random_start(images.cpu(), threat.eps, stream).to(context.device)
    best = float("-inf")
    for iteration in range(steps + 1):
        loss, by_weights, by_images = joint_gradient(
            context, weights, weights.vector + step, x_adv, labels
        )
        best = max(best, loss)
        if iteration == steps:
            return best
        lengths = weights.layer_norms(by_weights).clamp_min(1e-12)
        step = step + by_weights * weights.per_layer(step_share * radii / lengths)
        outside = weights.layer_norms(step).clamp_min(1e-12)
        step = step * weights.per_layer((radii / outside).clamp_max(1))
        x_adv = ball.project(ball.ascend(x_adv, by_images, threat.step_size), images, threat.eps)
    return best


def joint_gradient(
    context: Context, weights: FlatWeights, vector: Tensor, images: Tensor, labels: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Mean loss, its gradient by the weights, and each example's gradient by its pixels."""
    total, by_weights, by_images = 0.0, torch.zeros_like(vector), []
    for x, y in context.batches(images, labels):
        x.requires_grad_(True)
        at = vector.detach().requires_grad_(True)
        loss = F.cross_entropy(At(weights.model, weights.named(at))(x), y, reduction="sum")
        gradient, by_x = torch.autograd.grad(loss, [at, x])
        total += float(loss.detach())
        by_weights += gradient
        by_images.append(by_x)
    return total / len(labels), by_weights / len(labels), torch.cat(by_images)
