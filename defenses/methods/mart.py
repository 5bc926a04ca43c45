"""MART: adversarial training that weights its regulariser by how wrong the clean image is.

Wang, Zou, Yi, Bailey, Ma & Gu, "Improving Adversarial Robustness Requires Revisiting Misclassified
Examples", ICLR 2020, https://openreview.net/forum?id=rklOg6EFwS, equations 8 and 11
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from defenses.methods.base import InnerAttack, LossTerms, Method, kl_divergence, log_probabilities
from defenses.spec import require


@dataclass(frozen=True, kw_only=True)
class MART(Method):
    """BCE(p(x'), y) + beta KL(p(x) || p(x')) (1 - p_y(x)), x' from PGD on the cross-entropy.

    BCE(p, y) = -log p_y - log(1 - max_{k != y} p_k). The authors' code keeps its logarithms
    finite with added constants (1.0001 - p); here log(1 - p_k) is the log-sum-exp of the other
    logits, which is the paper's formula and cannot overflow.
    """

    loss_passes: ClassVar[float] = 6

    beta: float = 5.0

    def __post_init__(self) -> None:
        require(self.beta >= 0, f"beta={self.beta} must be at least 0")

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, attack: InnerAttack) -> Tensor:
        return attack(model, x, y)

    def objective(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossTerms:
        log_p, log_q = log_probabilities(model(x)), log_probabilities(model(x_adv))
        true = y[:, None]
        likeliest_wrong = log_q.detach().scatter(1, true, -torch.inf).argmax(dim=1, keepdim=True)
        log_not_wrong = log_q.scatter(1, likeliest_wrong, -torch.inf).logsumexp(dim=1)
        bce = -(log_q.gather(1, true).squeeze(1) + log_not_wrong).mean()
        wrongness = 1 - log_p.gather(1, true).squeeze(1).exp()
        kl = (kl_divergence(log_p, log_q) * wrongness).mean()
        return LossTerms(bce + self.beta * kl, {"bce_adv": bce.detach(), "kl": kl.detach()})
