"""How much the output can change near an image, per unit of perturbation."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from defenses.attacks.threat import geometry, lengths
from measures.engine.context import Context
from measures.engine.estimate import over_examples
from measures.engine.measure import Estimate

Output = Literal["logits", "probabilities"]
STARTS = 2  # per image: the scatter between them is what the standard error comes from


def local_lip(
    context: Context, *, output: Output, steps: int = 10, examples: int = 256
) -> Estimate:
    """(1/N) Σ max_δ ‖z(x) - z(x+δ)‖₁/‖δ‖ over δ in the threat's ball (‖δ‖∞ for l∞), by ascent.
    Yang et al., NeurIPS 2020, "A closer look at accuracy vs. robustness".

    Ascent on ‖z(x) - z(x+δ)‖₁ from 0.001·randn in steps of eps/3 inside ball and box; the iterate
    with the best ratio counts, averaged over two starts. (Ascent on the ratio itself, as in the
    authors' code, pulls back the largest pixel at every step and misses the linear optimum.)
    Linear: at most max_{s∈{±1}^d} ‖Ws‖₁, and exactly that for one row or two opposite ones.
    ``probabilities`` takes p for z, which, unlike logits, have a fixed scale.
    """
    images = context.images[:examples]
    ratios = []
    for start in range(STARTS):
        noise = torch.randn(images.shape, generator=context.generator("local_lip", start))
        parts = [
            largest_ratio(context, x, x + 0.001 * noise_x, output, steps)
            for x, noise_x in context.batches(images, noise.to(context.device))
        ]
        ratios.append(torch.cat(parts))
    return over_examples(torch.stack(ratios, dim=1))


def largest_ratio(context: Context, x: Tensor, start: Tensor, output: Output, steps: int) -> Tensor:
    """``(N,)``: the largest ratio met on the way up from ``start``."""
    ball = geometry(context.threat.norm)
    eps = context.threat.eps

    def response(x: Tensor) -> Tensor:
        z: Tensor = context.model(x)
        return z if output == "logits" else z.softmax(dim=1)

    with torch.no_grad():
        z = response(x)
    x_adv = ball.project(start, x, eps)
    best = x.new_zeros(len(x))
    for step in range(steps + 1):
        x_adv = x_adv.detach().requires_grad_(True)
        delta = x_adv - x
        size = delta.abs().flatten(1).amax(dim=1)
        if context.threat.norm == "l2":
            size = lengths(delta).flatten()
        moved = size.detach() > 0  # the box can undo the whole start, at a corner of it
        change = (response(x_adv) - z).abs().sum(dim=1)
        ratio = change.detach() / size.detach().clamp_min(1e-12)
        best = torch.where(moved, best.maximum(ratio), best)
        if step < steps:
            (gradient,) = torch.autograd.grad(change.sum(), x_adv)
            x_adv = ball.project(ball.ascend(x_adv, gradient, eps / 3), x, eps)
    return best
