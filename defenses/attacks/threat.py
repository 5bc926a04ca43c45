"""The geometry of a threat: what a norm means for a start, a step and the projection.

All tensors are batches ``(N, ...)`` of images in the box [0, 1]; ``eps`` and ``size`` are in
units of the norm. Every function returns a new tensor and keeps the dtype.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from defenses.spec import Norm, require_choice


class Geometry(Protocol):
    """What an attack needs to know of a norm."""

    @staticmethod
    def project(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        """Nearest point of the ball around ``x``, then clamped to the box."""

    @staticmethod
    def ascend(x_adv: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        """One step of ``size`` (or one size per example) in the norm's steepest direction."""

    @staticmethod
    def random_start(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
        """Random point of the ball around ``x``, clamped to the box."""


class Linf:
    """max |delta| <= eps. Steepest ascent is the sign of the gradient."""

    @staticmethod
    def project(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        return (x_adv - x).clamp_(-eps, eps).add_(x).clamp_(0, 1)

    @staticmethod
    def ascend(x_adv: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        return x_adv + size * gradient.sign()

    @staticmethod
    def random_start(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
        noise = torch.empty_like(x).uniform_(-eps, eps, generator=generator)
        return torch.clamp(x + noise, 0, 1)


class L2:
    """sqrt(sum delta^2) <= eps. Steepest ascent is the gradient, scaled to length 1.

    A zero gradient gives no step. The random start has a uniform direction and a uniform length
    in [0, eps], as torchattacks has it: denser near the middle than uniform in the ball.
    """

    @staticmethod
    def project(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
        delta = x_adv - x
        tiny = torch.finfo(delta.dtype).tiny
        shrink = (eps / lengths(delta).clamp_min(tiny)).clamp_max(1)
        return torch.clamp(x + delta * shrink, 0, 1)

    @staticmethod
    def ascend(x_adv: Tensor, gradient: Tensor, size: float | Tensor) -> Tensor:
        tiny = torch.finfo(gradient.dtype).tiny
        return x_adv + gradient * (size / lengths(gradient).clamp_min(tiny))

    @staticmethod
    def random_start(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
        direction = torch.empty_like(x).normal_(generator=generator)
        radius = lengths(x).uniform_(0, eps, generator=generator)
        tiny = torch.finfo(x.dtype).tiny
        return torch.clamp(x + direction * (radius / lengths(direction).clamp_min(tiny)), 0, 1)


GEOMETRIES: dict[Norm, type[Geometry]] = {"linf": Linf, "l2": L2}


def geometry(norm: Norm) -> type[Geometry]:
    """The geometry of ``norm``; ``ValueError`` with the valid ones otherwise."""
    require_choice("norm", norm, tuple(GEOMETRIES))
    return GEOMETRIES[norm]


def lengths(batch: Tensor) -> Tensor:
    """Euclidean length of each example, shaped ``(N, 1, ..., 1)`` to divide the batch by."""
    flat: Tensor = torch.linalg.vector_norm(batch.flatten(1), dim=1)
    return flat.view(-1, *[1] * (batch.ndim - 1))
