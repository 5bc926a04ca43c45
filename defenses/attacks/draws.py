"""Random numbers of single examples, for attacks whose outcome must not depend on the batch.

An attack that drops the examples it has broken draws for a different set of examples at every
stage. Each example therefore has its own stream, named by (seed, purpose, its number, ...). The
numbers are drawn on the CPU, so that they are also the same on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from defenses.randomness import generator


def uniform(
    seed: int, purpose: str, indices: Tensor, shape: Sequence[int], *counters: int
) -> Tensor:
    """``(N, *shape)`` numbers in [0, 1): row k belongs to example ``indices[k]`` alone."""
    return _drawn(torch.rand, seed, purpose, indices, shape, counters)


def normal(
    seed: int, purpose: str, indices: Tensor, shape: Sequence[int], *counters: int
) -> Tensor:
    """``(N, *shape)`` standard normal numbers: row k belongs to example ``indices[k]`` alone."""
    return _drawn(torch.randn, seed, purpose, indices, shape, counters)


def _drawn(
    draw: Callable[..., Tensor],
    seed: int,
    purpose: str,
    indices: Tensor,
    shape: Sequence[int],
    counters: tuple[int, ...],
) -> Tensor:
    result = torch.empty(len(indices), *shape)
    for row, index in zip(result, indices.tolist(), strict=True):
        row.copy_(draw(tuple(shape), generator=generator(seed, purpose, index, *counters)))
    return result.to(indices.device)


def numbering(x: Tensor, indices: Tensor | None) -> Tensor:
    """The examples' numbers ``(N,)`` int64 on the device of ``x``; by default 0, 1, ..."""
    if indices is None:
        return torch.arange(len(x), device=x.device)
    if indices.shape != (len(x),):
        raise ValueError(f"indices has shape {tuple(indices.shape)}, must be ({len(x)},)")
    return indices.to(x.device)
