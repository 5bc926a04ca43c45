"""Adversarial training: the cross-entropy at the worst image of the ball.

Madry, Makelov, Schmidt, Tsipras & Vladu, "Towards Deep Learning Models Resistant to Adversarial
Attacks", ICLR 2018, https://arxiv.org/abs/1706.06083, equation 2.1
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from defenses.methods.base import InnerAttack, LossTerms, Method


@dataclass(frozen=True, kw_only=True)
class AT(Method):
    """CE(h(x'), y) with x' from PGD on the cross-entropy, from a uniform random start."""

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, attack: InnerAttack) -> Tensor:
        return attack(model, x, y)

    def objective(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossTerms:
        ce = F.cross_entropy(model(x_adv), y)
        return LossTerms(ce, {"ce_adv": ce.detach()})
