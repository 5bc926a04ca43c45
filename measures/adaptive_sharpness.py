"""Adaptive sharpness: weight perturbations proportional to the weights, worst case and average."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.attacks.losses import cross_entropy
from measures.engine.context import Context, On, trainable
from measures.engine.estimate import over_draws
from measures.engine.measure import Estimate
from measures.engine.weight_noise import FlatWeights, Loss, mean_loss


def adaptive_sharpness(
    context: Context,
    *,
    on: On,
    normalised: bool,
    rho: float = 0.002,
    steps: int = 20,
    size: int = 128,
    examples: int = 256,
) -> float:
    """Mean over sets of 128 examples of max_ν L(w+ν) - L(w) subject to |ν_i| <= ρ|w_i|.
    Andriushchenko, Croce, Müller, Hein & Flammarion, ICML 2023 (adaptive m-sharpness, l∞).

    By Auto-PGD without restart. All trainable parameters. ``normalised``: the cross-entropy of
    the logits centred and divided by their l2 norm, which removes the effect of their scale.
    """
    data = context.on(on)
    weights = FlatWeights(context.model, trainable(context.model))
    loss = normalised_cross_entropy if normalised else cross_entropy
    gains = []
    for start in range(0, min(examples, len(data.labels)), size):
        part = slice(start, min(start + size, examples))
        images, labels = data.images[part], data.labels[part]
        gains.append(auto_pgd_gain(context, weights, images, labels, loss, rho, steps))
    return sum(gains) / len(gains)


def auto_pgd_gain(
    context: Context,
    weights: FlatWeights,
    images: Tensor,
    labels: Tensor,
    loss: Loss,
    rho: float,
    steps: int,
) -> float:
    """max_ν L(w+ν) - L(w) in the box |ν_i| <= ρ|w_i|, by sign ascent with adaptive steps.

    Auto-PGD (Croce & Hein, ICML 2020): momentum 0.75; at shrinking intervals the step is halved,
    and the search goes back to the best point, unless the loss rose in 75 % of the interval's
    steps, or if neither the step nor the best loss changed since the last check.
    """
    w = weights.vector
    box = rho * w.abs()
    point = previous = w
    start_loss, gradient = weights.loss_and_gradient(context, point, images, labels, loss)
    best_point, best, best_gradient = point, start_loss, gradient
    size, rises, last = 2.0, 0, start_loss
    checks = checkpoints(steps)
    size_at_check, best_at_check, check_before = size, best, 0
    for step in range(1, steps + 1):
        target = torch.clamp(point + size * box * gradient.sign(), w - box, w + box)
        share = 0.75 if step > 1 else 1.0
        following = point + share * (target - point) + (1 - share) * (point - previous)
        previous, point = point, torch.clamp(following, w - box, w + box)
        value, gradient = weights.loss_and_gradient(context, point, images, labels, loss)
        rises += value > last
        last = value
        if value > best:
            best_point, best, best_gradient = point, value, gradient
        if step in checks:
            slow = rises < 0.75 * (step - check_before)
            stuck = size_at_check == size and best_at_check == best
            size_at_check, best_at_check, check_before, rises = size, best, step, 0
            if slow or stuck:
                size /= 2
                point, gradient, last = best_point, best_gradient, best
    return best - start_loss


def checkpoints(steps: int) -> set[int]:
    """Steps at which Auto-PGD checks its progress: 22 %, then 19, 16, ... down to 6 % later."""
    share, width, found = 0.22, 0.22, []
    while share < 1:
        found.append(-int(-share * steps // 1))
        width = max(width - 0.03, 0.06)
        share += width
    return set(found)


def average_adaptive_sharpness(
    context: Context, *, on: On, rho: float = 0.1, pairs: int = 10, examples: int = 256
) -> Estimate:
    """E L(w + ν) - L(w) with ν_i = ρ|w_i|·N(0, 1), on fixed examples.
    Andriushchenko, Croce, Müller, Hein & Flammarion, ICML 2023 (average-case adaptive sharpness).

    Draws come in pairs ±ν: the slope of the loss, which averages to nothing, cancels exactly.
    """
    data = context.on(on)
    images, labels = data.images[:examples], data.labels[:examples]
    weights = FlatWeights(context.model, trainable(context.model))
    reference = float(data.cross_entropy[:examples].double().mean())
    gains = []
    for pair in range(pairs):
        noise = weights.noise(context.generator("average adaptive sharpness", pair))
        step = rho * weights.vector.abs() * noise
        losses = [mean_loss(context, weights.moved(s), images, labels) for s in (step, -step)]
        gains.append(sum(losses) / 2 - reference)
    return over_draws(torch.tensor(gains))


def normalised_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    centred = logits - logits.mean(dim=1, keepdim=True)
    return cross_entropy(F.normalize(centred, dim=1), labels)
