"""How far the loss is from linear around an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.attacks.threat import geometry
from measures.engine.context import Context
from measures.engine.estimate import over_examples
from measures.engine.measure import Estimate

STARTS = 2  # of the ascent, per image
DIRECTIONS = 4  # per image: most meet no kink, and two would seldom show the scatter


def cure_curvature(context: Context) -> float:
    """Mean of ‖∇ℓ(x + hv) - ∇ℓ(x)‖₂/h, v the unit vector along sign(∇ℓ(x)) (l2: ∇ℓ(x)).
    Moosavi-Dezfooli, Fawzi, Uesato & Frossard, CVPR 2019 (CURE).

    h is the l2 length of a step of eps in the threat's norm: 1.74 for 8/255 on CIFAR (the
    authors: 1.5). The step is not clamped to the box. Softmax bends even linear logits.
    """
    ball = geometry(context.threat.norm)
    gradients = context.clean.input_gradients
    total = 0.0
    for x, y, gradient in context.batches(context.images, context.labels, gradients):
        step = ball.ascend(torch.zeros_like(x), gradient, context.threat.eps)
        h = step.flatten(1).norm(dim=1)
        change = (loss_gradient(context, x + step, y)[1] - gradient).flatten(1).norm(dim=1)
        total += float((change / h).nan_to_num(nan=0.0).double().sum())  # 0/0: a flat loss
    return total / len(context.labels)


def local_linearity(context: Context, *, steps: int = 10, examples: int = 256) -> Estimate:
    """Mean of max_δ |ℓ(x+δ) - ℓ(x) - δᵀ∇ℓ(x)| over δ in the threat's ball and the box.
    Qin et al., NeurIPS 2019 (local linearity regularisation).

    Ascent from a random start in steps of eps/4; the best iterate counts, averaged over two
    starts.
    """
    ball, eps = geometry(context.threat.norm), context.threat.eps
    images, labels = context.images[:examples], context.labels[:examples]
    gradients = context.clean.input_gradients[:examples]
    losses = context.clean.cross_entropy[:examples]
    found = []
    for start in range(STARTS):
        stream = context.generator("local linearity", start)
        begin = ball.random_start(images.cpu(), eps, stream).to(context.device)
        parts = []
        for x, y, gradient, loss, x_adv in context.batches(
            images, labels, gradients, losses, begin
        ):
            best = torch.zeros_like(loss)
            for step in range(steps + 1):
                x_adv = x_adv.detach().requires_grad_(True)
                taylor = loss + ((x_adv - x) * gradient).flatten(1).sum(dim=1)
                moved = F.cross_entropy(context.model(x_adv), y, reduction="none")
                error = (moved - taylor).abs()
                best = best.maximum(error.detach())
                if step < steps:
                    (ascent,) = torch.autograd.grad(error.sum(), x_adv)
                    x_adv = ball.project(ball.ascend(x_adv, ascent, eps / 4), x, eps)
            parts.append(best)
        found.append(torch.cat(parts))
    return over_examples(torch.stack(found, dim=1))


def grad_align(context: Context, *, examples: int = 256) -> Estimate:
    """Mean of 1 - cos(∇ℓ(x), ∇ℓ(x+η)), η uniform in the threat's ball; 0 for a linear loss.
    Andriushchenko & Flammarion, NeurIPS 2020 (GradAlign). Large: catastrophic overfitting.
    """
    ball, eps = geometry(context.threat.norm), context.threat.eps
    images, labels = context.images[:examples], context.labels[:examples]
    gradients = context.clean.input_gradients[:examples].flatten(1)
    found = []
    for draw in range(DIRECTIONS):
        stream = context.generator("grad_align", draw)
        noisy = ball.random_start(images.cpu(), eps, stream).to(context.device)
        there = torch.cat(
            [loss_gradient(context, x, y)[1] for x, y in context.batches(noisy, labels)]
        )
        found.append(1 - F.cosine_similarity(gradients, there.flatten(1), dim=1))
    return over_examples(torch.stack(found, dim=1))


def loss_gradient(context: Context, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each example, and its gradient by the pixels."""
    x = x.detach().requires_grad_(True)
    losses = F.cross_entropy(context.model(x), y, reduction="none")
    return losses.detach(), torch.autograd.grad(losses.sum(), x)[0]
