"""Sensitivity of the logits to the pixels."""

from __future__ import annotations

import torch

from measures.engine.context import Context
from measures.engine.estimate import over_examples
from measures.engine.measure import Estimate


def jacobian_norm(context: Context, *, projections: int = 4, examples: int = 256) -> Estimate:
    """√(E ‖∂z/∂x‖_F²) over clean images, by random projections; linear model: ‖W‖_F.
    Novak et al., ICLR 2018; the projections are those of Hoffman, Roberts & Yaida 2019.
    """
    images = context.images[:examples]
    found = []
    for draw in range(projections):
        stream = context.generator("jacobian projections", draw)
        v = torch.randn((len(images), context.num_classes), generator=stream)
        parts = []
        for x, v_x in context.batches(images, v.to(context.device)):
            x.requires_grad_(True)
            (row,) = torch.autograd.grad((context.model(x) * v_x).sum(), x)
            parts.append(row.flatten(1).double().pow(2).sum(dim=1))  # E = ‖J‖_F²
        found.append(torch.cat(parts))
    square = over_examples(torch.stack(found, dim=1))
    root = square.value**0.5
    return Estimate(root, square.se / (2 * root) if root > 0 else square.se)
