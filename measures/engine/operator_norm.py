"""Spectral norms of the linear maps a network applies: the operators, not reshaped kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.randomness import generator
from measures.engine.folding import Diagonal, LinearMap
from measures.engine.lanczos import ritz_values


def spectral_norm(linear_map: LinearMap) -> float:
    """Largest singular value of the map at its real input size, stride, padding and groups.

    A kernel reshaped to (out, in·k·k) has another spectral norm, by a factor of two for common
    3×3 convolutions. The start vector is fixed: nothing here depends on a seed.
    """
    module = linear_map.module
    if isinstance(module, Diagonal):
        return float(linear_map.weight.abs().max())
    if isinstance(module, nn.Linear):
        return float(torch.linalg.matrix_norm(linear_map.weight.double(), 2))
    stream = generator(0, "operator norm")
    weight = linear_map.weight
    start = torch.randn((1, *linear_map.input_shape), generator=stream).to(weight)
    constant = module(torch.zeros_like(start)).detach()

    def gram(x: Tensor) -> Tensor:
        """AᵀAx, as the gradient of ½‖Ax‖²."""
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            half = (module(x) - constant).pow(2).sum() / 2
        return torch.autograd.grad(half, x)[0]

    return float(ritz_values(gram, start)[-1].clamp_min(0).sqrt())


def frobenius_norm(linear_map: LinearMap) -> float:
    """Root of the sum of squared entries of the map's kernel (diagonal layers: its l2 norm)."""
    return float(linear_map.weight.double().norm())
