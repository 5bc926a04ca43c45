"""Products of the loss Hessian with vectors of weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from measures.engine.context import Context, trainable
from measures.engine.weight_noise import At, FlatWeights


class LossHessian:
    """Hessian of the mean cross-entropy on fixed examples, by all trainable parameters.

    The model is in eval mode (batch-norm is an affine map) and the images do not move with the
    weights: on adversarial examples the response of the attack is left out.
    """

    def __init__(self, context: Context, images: Tensor, labels: Tensor) -> None:
        self.context = context
        self.images = images
        self.labels = labels
        self.weights = FlatWeights(context.model, trainable(context.model))

    def product(self, vector: Tensor) -> Tensor:
        """H v."""
        return self.products(vector[None])[0]

    def products(self, vectors: Tensor) -> Tensor:
        """H V, for vectors ``(P, n)``: one graph per batch serves all of them."""
        total = torch.zeros_like(vectors)
        for x, y in self.context.batches(self.images, self.labels):
            at = self.weights.vector.detach().requires_grad_(True)
            logits = At(self.weights.model, self.weights.named(at))(x)
            loss = F.cross_entropy(logits, y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, at, create_graph=True)
            for p, vector in enumerate(vectors):
                (product,) = torch.autograd.grad(gradient, at, vector, retain_graph=True)
                total[p] += product
        return total / len(self.labels)

    def probes(self, count: int, purpose: str) -> Tensor:
        """``(count, n)`` random signs (Rademacher)."""
        stream = self.context.generator(purpose)
        signs = torch.randint(0, 2, (count, len(self.weights)), generator=stream, dtype=torch.int8)
        return (2 * signs - 1).to(self.weights.vector)
