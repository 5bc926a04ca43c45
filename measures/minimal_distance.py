"""How near the nearest adversarial example is."""

from __future__ import annotations

import torch
from torch import Tensor

from measures.engine.context import Context

OVERSHOOT = 0.02


def minimal_distance(context: Context, *, steps: int = 20, examples: int = 64) -> float:
    """Mean size, in the threat's norm, of the smallest change DeepFool finds; 0 if misclassified.
    Moosavi-Dezfooli, Fawzi & Frossard, CVPR 2016 (DeepFool).

    Linear model: margin/‖w_y - w_j‖_*, minimised over j, in the dual norm. No box; images that
    are still classified correctly after the last step count with the change they got.
    """
    found = [
        deepfool(context, x, y, steps)
        for x, y in context.batches(context.images[:examples], context.labels[:examples])
    ]
    return float(torch.cat(found).double().mean())


def deepfool(context: Context, x: Tensor, y: Tensor, steps: int) -> Tensor:
    """``(N,)``: size of the sum of steps to the nearest linearised boundary."""
    linf = context.threat.norm == "linf"
    delta = torch.zeros_like(x)
    for _ in range(steps):
        logits, jacobian = logits_and_jacobian(context, x + (1 + OVERSHOOT) * delta)
        active = logits.argmax(dim=1) == y
        if not active.any():
            break
        margin = logits.gather(1, y[:, None]) - logits  # (N, K), 0 for the true class
        true_row = jacobian[torch.arange(len(y), device=y.device), y]
        normals = true_row[:, None] - jacobian  # (N, K, D)
        dual = normals.abs().sum(-1) if linf else normals.norm(dim=-1)
        distance = (margin / dual.clamp_min(1e-12)).scatter(1, y[:, None], torch.inf)
        nearest, j = distance.min(dim=1)
        normal = normals[torch.arange(len(y), device=y.device), j]
        direction = normal.sign() if linf else torch.nn.functional.normalize(normal, dim=1)
        step = -(nearest * active)[:, None] * direction
        delta = delta + step.view_as(delta)
    flat = delta.flatten(1)
    return flat.abs().amax(dim=1) if linf else flat.norm(dim=1)


def logits_and_jacobian(context: Context, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits ``(N, K)`` and their gradients by the pixels ``(N, K, D)``."""
    x = x.detach().requires_grad_(True)
    logits = context.model(x)
    rows = [
        torch.autograd.grad(logits[:, k].sum(), x, retain_graph=True)[0].flatten(1)
        for k in range(logits.shape[1])
    ]
    return logits.detach(), torch.stack(rows, dim=1)
