"""The difference of logits ratio, and the targeted objectives of AutoAttack.

Croce & Hein 2020, https://arxiv.org/abs/2003.01690, section 5. A loss that the scale of the logits
does not change: unlike the cross-entropy it cannot be silenced by multiplying them by 100.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from defenses.attacks.losses import negative_margin
from defenses.spec import require, require_choice

TargetedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits, y, target) -> loss per example

TINY = 1e-12  # keeps ratios finite where the largest logits are equal


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """(max_{j != y} z_j - z_y) / (z_1st - z_3rd), z sorted; at least 3 classes. Eq. 6."""
    _require_classes(logits, 3, "dlr")
    best = logits.topk(3, dim=1).values
    return negative_margin(logits, y) / (best[:, 0] - best[:, 2] + TINY)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """(z_t - z_y) / (z_1st - (z_3rd + z_4th) / 2), z sorted; at least 4 classes. Eq. 7."""
    _require_classes(logits, 4, "targeted dlr")
    best = logits.topk(4, dim=1).values
    scale = best[:, 0] - (best[:, 2] + best[:, 3]) / 2
    return targeted_margin(logits, y, target) / (scale + TINY)


def targeted_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """z_t - z_y, for any number of classes."""
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)


TARGETED_LOSSES: dict[str, TargetedLoss] = {"dlr": targeted_dlr, "margin": targeted_margin}


def targeted_loss(name: str) -> TargetedLoss:
    """The targeted objective called ``name``; ``ValueError`` with the valid ones otherwise."""
    require_choice("loss", name, tuple(TARGETED_LOSSES))
    return TARGETED_LOSSES[name]


def likeliest_wrong(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The ``count`` wrong classes with the largest logits, largest first ``(N, count)``.

    Fewer where there are fewer wrong classes.
    """
    wrong = logits.scatter(1, y[:, None], float("-inf"))
    return wrong.topk(min(count, logits.shape[1] - 1), dim=1).indices


def _require_classes(logits: Tensor, least: int, loss: str) -> None:
    require(
        logits.shape[1] >= least,
        f"loss={loss} needs at least {least} classes, this model has {logits.shape[1]}; "
        "choose loss=margin",
    )
