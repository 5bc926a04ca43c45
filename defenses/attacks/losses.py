"""What an attack maximises: losses per example, by name.

Each takes logits ``(N, K)`` and labels ``(N,)`` and returns ``(N,)``. Summed, not averaged,
they give every example its own gradient, untouched by the batch it happens to be in.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from defenses.spec import require_choice

AttackLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log p_y."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """z_y - max_{j != y} z_j: positive where the prediction is right."""
    true = F.one_hot(y, logits.shape[1]).bool()
    z_y = logits.gather(1, y[:, None]).squeeze(1)
    return z_y - logits.masked_fill(true, -torch.inf).amax(dim=1)


def negative_margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{j != y} z_j - z_y (Carlini & Wagner 2017, with kappa = -inf).

    Unlike the cross-entropy its gradient does not vanish when the softmax saturates.
    """
    return -margin(logits, y)


LOSSES: dict[str, AttackLoss] = {"ce": cross_entropy, "margin": negative_margin}


def attack_loss(loss: str | AttackLoss) -> AttackLoss:
    """The function behind a name in ``LOSSES``; a callable is returned as it is."""
    if callable(loss):
        return loss
    require_choice("loss", loss, tuple(LOSSES))
    return LOSSES[loss]
