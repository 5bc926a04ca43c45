"""Evaluating a model at other weights than its own, without touching it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from measures.engine.context import Context, Pass


class At(nn.Module):
    """``model`` as it would be with ``weights`` (name -> tensor) in place of its own."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.model, self.weights, (x,))
        return logits


@torch.no_grad()
def mean_loss(context: Context, data: Pass, weights: dict[str, Tensor]) -> float:
    """Mean cross-entropy on ``data``'s images with ``weights`` in place of the model's."""
    logits = context.logits(At(context.model, weights), data.images)
    return float(F.cross_entropy(logits.double(), data.labels))
