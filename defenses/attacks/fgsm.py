"""The fast gradient sign method, and its l2 counterpart: one full step from the image itself.

Goodfellow, Shlens & Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015,
https://arxiv.org/abs/1412.6572
"""

from __future__ import annotations

from torch import Tensor, nn

from defenses.attacks.losses import AttackLoss
from defenses.attacks.pgd import pgd
from defenses.spec import Norm


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    loss: str | AttackLoss = "ce",
    targeted: bool = False,
) -> Tensor:
    """Adversarial images after one step of length ``eps``; arguments and guarantees as ``pgd``."""
    return pgd(
        model,
        x,
        y,
        eps=eps,
        step_size=eps,
        steps=1,
        norm=norm,
        loss=loss,
        targeted=targeted,
        random_start=False,
    )
