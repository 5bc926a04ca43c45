"""Norms of the loss gradient, by the pixels and by the weights."""

from __future__ import annotations

from typing import Literal

import torch

from measures.engine.context import Context, On


def x_grad_norm(context: Context, *, on: On, norm: Literal["l1", "l2"]) -> float:
    """(1/N) Σ ‖∇_x CE(x')‖, the mean norm of each example's input gradient.
    Kim et al., NeurIPS 2023 ("x_grad_norm"); linear model: ‖Wᵀ(p - e_y)‖.

    l1 is the dual of l∞: to first order, eps·‖∇‖₁ is what an l∞ attack gains.
    """
    gradients = context.on(on).input_gradients.flatten(1)
    return float(gradients.norm(p=1 if norm == "l1" else 2, dim=1).double().mean())


def w_grad_norm(context: Context, *, on: On) -> float:
    """‖∇_w (1/N) Σ CE(x')‖₂, the norm of the full gradient over all trainable parameters.
    Kim et al., NeurIPS 2023 ("w_grad_norm"); linear model: ‖(1/N) Σ (p - e_y) xᵀ‖_F.
    """
    gradient = context.on(on).weight_gradient.values()
    return float(torch.stack([g.double().pow(2).sum() for g in gradient]).sum().sqrt())
