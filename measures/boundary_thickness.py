"""How wide the zone between two decisions is."""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.attacks import pgd
from defenses.attacks.threat import lengths
from measures.engine.context import Context
from measures.engine.estimate import over_examples
from measures.engine.measure import Estimate

TARGETS = 2  # per image: the scatter between them is what the standard error comes from


def boundary_thickness(
    context: Context,
    *,
    alpha: float = 0.0,
    beta: float = 0.75,
    attack_eps: float = 1.0,
    attack_steps: int = 20,
    points: int = 32,
    examples: int = 256,
) -> Estimate:
    """Mean length of the part of the segment from x_s to x_r on which α < p_i - p_j < β.
    Yang et al., NeurIPS 2020, "Boundary thickness and robustness".

    x_r is an image and i its predicted class; x_s is the end of an l2 attack of radius
    ``attack_eps`` towards a random class j ≠ i. Linear, two classes, α = 0, β = 0.75:
    ln 7/|⟨w_i - w_j, u⟩| for a segment of direction u that spans the zone. 32 points a segment
    (the authors: 128) leave an error far below that of the random targets.
    """
    length, margin = segments(context, attack_eps, attack_steps, points, examples)
    inside = ((margin > alpha) & (margin < beta)).double().mean(dim=-1)
    return over_examples(length * inside)


def boundary_reach(
    context: Context,
    *,
    alpha: float = 0.0,
    attack_eps: float = 1.0,
    attack_steps: int = 20,
    points: int = 32,
    examples: int = 256,
) -> Estimate:
    """Share of those segments that leave the zone on its far side, p_i - p_j <= α at some point.
    No paper: it says where ``boundary_thickness`` saturates at the length of the attack.
    """
    _, margin = segments(context, attack_eps, attack_steps, points, examples)
    return over_examples((margin <= alpha).any(dim=-1).double())


def segments(
    context: Context, attack_eps: float, attack_steps: int, points: int, examples: int
) -> tuple[Tensor, Tensor]:
    """Lengths ``(N, R)`` of R segments per image; p_i - p_j at P points of each, ``(N, R, P)``."""
    key = ("boundary segments", attack_eps, attack_steps, points, examples)
    return context.once(
        key, lambda: attacked_segments(context, attack_eps, attack_steps, points, examples)
    )


def attacked_segments(
    context: Context, attack_eps: float, attack_steps: int, points: int, examples: int
) -> tuple[Tensor, Tensor]:
    images = context.images[:examples]
    predicted = context.clean.logits[:examples].argmax(dim=1)
    lengths_of, margins_of = [], []
    for draw in range(TARGETS):
        stream = context.generator("boundary thickness targets", draw)
        # A class other than the predicted one, each equally likely.
        step = torch.randint(1, context.num_classes, predicted.shape, generator=stream)
        targets = (predicted + step.to(predicted.device)) % context.num_classes
        length, margin = [], []
        for x_r, i, j in context.batches(images, predicted, targets):
            x_s = pgd(
                context.model,
                x_r,
                j,
                eps=attack_eps,
                step_size=attack_eps / 5,
                steps=attack_steps,
                norm="l2",
                targeted=True,
                random_start=False,
            )
            length.append(lengths(x_r - x_s).flatten())
            margin.append(probability_margins(context, x_r, x_s, i, j, points))
        lengths_of.append(torch.cat(length))
        margins_of.append(torch.cat(margin))
    return torch.stack(lengths_of, dim=1), torch.stack(margins_of, dim=1)


@torch.no_grad()
def probability_margins(
    context: Context, x_r: Tensor, x_s: Tensor, i: Tensor, j: Tensor, points: int
) -> Tensor:
    """p_i - p_j ``(N, P)`` at the middles of P equal parts of each segment."""
    found = []
    for k in range(points):
        t = (k + 0.5) / points
        p = context.model(t * x_r + (1 - t) * x_s).softmax(dim=1)
        found.append((p.gather(1, i[:, None]) - p.gather(1, j[:, None])).squeeze(1))
    return torch.stack(found, dim=1)
