"""Standard training: the cross-entropy on the images as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from defenses.methods.base import InnerAttack, LossTerms, Method


@dataclass(frozen=True, kw_only=True)
class Standard(Method):
    """CE(h(x), y)."""

    needs_inner_maximisation: ClassVar[bool] = False

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, attack: InnerAttack) -> Tensor:
        return x

    def objective(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossTerms:
        ce = F.cross_entropy(model(x), y)
        return LossTerms(ce, {"ce": ce.detach()})
