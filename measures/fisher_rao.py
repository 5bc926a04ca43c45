"""The Fisher–Rao norm of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from measures.engine.context import Context, On, trainable
from measures.engine.weight_noise import At, FlatWeights


def fisher_rao(context: Context, *, on: On) -> float:
    """E ⟨∇_w ℓ, w⟩² over the examples, ℓ the cross-entropy, w all trainable parameters.
    Liang, Poggio, Rakhlin & Stokes, AISTATS 2019, with gradients at the true labels.

    For bias-free ReLU networks of L+1 layers: (L+1)² E (⟨p, z⟩ - z_y)². With biases or
    batch-norm that identity fails, and this is what it stood for.
    """
    data = context.on(on)
    weights = FlatWeights(context.model, trainable(context.model))
    total = 0.0
    for x, y in context.batches(data.images, data.labels):
        logits, change = logits_along_weights(weights, x)
        error = logits.softmax(dim=1)
        error[torch.arange(len(y), device=y.device), y] -= 1
        total += float((error * change).sum(dim=1).pow(2).sum())
    return total / len(data.labels)


def logits_along_weights(weights: FlatWeights, x: Tensor) -> tuple[Tensor, Tensor]:
    """z and its change Jw when all weights grow in proportion, ``(N, K)`` float64.

    Jw is the derivative by u of ⟨Jᵀu, w⟩, which is linear in u: two backward passes.
    """
    at = weights.vector.detach().requires_grad_(True)
    logits = At(weights.model, weights.named(at))(x)
    u = torch.zeros_like(logits, requires_grad=True)
    (pulled_back,) = torch.autograd.grad(logits, at, u, create_graph=True)
    (change,) = torch.autograd.grad(pulled_back, u, weights.vector)
    return logits.detach().double(), change.double()
