"""How much the weight gradients of small batches disagree."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from measures.engine.context import Context, On, trainable
from measures.engine.measure import Undefined


def gradient_variance(context: Context, *, on: On, size: int = 32, examples: int = 1024) -> float:
    """Σ_i Var_b (g_b)_i: variance between the weight gradients of batches of ``size`` examples.
    Jiang et al., ICLR 2020 (variance of the gradients), here at the given examples.
    """
    sums = batch_gradients(context, on, size, examples)
    return float(sums.squares - sums.total.pow(2).sum() / sums.count) / (sums.count - 1)


def gradient_cosine(context: Context, *, on: On, size: int = 32, examples: int = 1024) -> float:
    """Mean cosine between the weight gradients of two batches of ``size`` examples.
    After Liu, Salzmann, Lin, Tomioka & Süsstrunk, NeurIPS 2020 (scattered gradients).
    """
    sums = batch_gradients(context, on, size, examples)
    # ‖Σ u_b‖² = B + Σ_{b≠c} ⟨u_b, u_c⟩ for unit vectors u_b.
    pairs = sums.count * (sums.count - 1)
    return (float(sums.directions.pow(2).sum()) - sums.count) / pairs


@dataclass
class Sums:
    """Over B batches: Σ g_b, Σ ‖g_b‖², Σ g_b/‖g_b‖."""

    total: Tensor
    squares: Tensor
    directions: Tensor
    count: int


def batch_gradients(context: Context, on: On, size: int, examples: int) -> Sums:
    """Sums over all full batches of ``size``, in the order of the images; the rest is left out."""
    key = ("batch gradients", on, size, examples)
    return context.once(key, lambda: summed(context, on, size, examples))


def summed(context: Context, on: On, size: int, examples: int) -> Sums:
    data = context.on(on)
    count = min(examples, len(data.labels)) // size
    if count < 2:
        raise Undefined(f"two batches of {size} need {2 * size} images, not {len(data.labels)}")
    weights = list(trainable(context.model).values())
    n = sum(w.numel() for w in weights)
    zero = torch.zeros(n, dtype=torch.float64, device=context.device)
    sums = Sums(zero, zero.sum(), zero.clone(), count)
    for b in range(count):
        part = slice(b * size, (b + 1) * size)
        loss = F.cross_entropy(context.model(data.images[part]), data.labels[part])
        gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
        g = torch.cat([gradient.flatten() for gradient in gradients]).double()
        if not g.any():
            raise Undefined("the weight gradient of a batch is zero, so it has no direction")
        sums.total = sums.total + g
        sums.squares = sums.squares + g.pow(2).sum()
        sums.directions = sums.directions + g / g.norm()
    return sums
