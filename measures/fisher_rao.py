"""The Fisher–Rao norm of the weights."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call, jvp

from measures.engine.context import Context, On, trainable


def fisher_rao(context: Context, *, on: On) -> float:
    """E ⟨∇_w ℓ, w⟩² over the examples, ℓ the cross-entropy, w all trainable parameters.
    Liang, Poggio, Rakhlin & Stokes, AISTATS 2019, with gradients at the true labels.

    For bias-free ReLU networks of L+1 layers: (L+1)² E (⟨p, z⟩ - z_y)². With biases or
    batch-norm that identity fails and this, by one Jacobian-vector product, is what it meant.
    """
    data = context.on(on)
    weights = {name: p.detach() for name, p in trainable(context.model).items()}
    total = 0.0
    for x, y in context.batches(data.images, data.labels):

        def response(w: dict[str, Tensor], x: Tensor = x) -> Tensor:
            logits: Tensor = functional_call(context.model, w, (x,))
            return logits

        with torch.no_grad():
            logits, change, *_ = jvp(response, (weights,), (weights,))
        error = logits.double().softmax(dim=1)
        error[torch.arange(len(y), device=y.device), y] -= 1
        total += float((error * change.double()).sum(dim=1).pow(2).sum())
    return total / len(data.labels)
