"""TRADES: accuracy on clean images, traded against the change of the prediction around them.

Zhang, Yu, Jiao, Xing, El Ghaoui & Jordan, "Theoretically Principled Trade-off between Robustness
and Accuracy", ICML 2019, https://arxiv.org/abs/1901.08573, equation 5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.attacks.inference import frozen
from defenses.methods.base import InnerAttack, LossTerms, Method, kl_divergence, log_probabilities
from defenses.spec import require

START_STD = 0.001  # of the normal noise added before the ascent, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class TRADES(Method):
    """CE(h(x), y) + beta KL(p(x) || p(x')), x' maximising the same divergence.

    The divergence has gradient 0 at x itself, hence the noise at the start. p(x) is a constant
    while x' is sought, and differentiated in the objective.
    """

    loss_passes: ClassVar[float] = 6
    craft_passes: ClassVar[float] = 1

    beta: float = 6.0

    def __post_init__(self) -> None:
        require(self.beta >= 0, f"beta={self.beta} must be at least 0")

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, attack: InnerAttack) -> Tensor:
        with frozen(model), torch.no_grad():
            log_p = log_probabilities(model(x))

        def divergence(logits: Tensor, _: Tensor) -> Tensor:
            return kl_divergence(log_p, log_probabilities(logits))

        noise = torch.empty_like(x).normal_(std=START_STD, generator=attack.generator)
        return attack(model, x, y, loss=divergence, start=x + noise)

    def objective(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossTerms:
        log_p, log_q = log_probabilities(model(x)), log_probabilities(model(x_adv))
        ce = F.nll_loss(log_p, y)
        kl = kl_divergence(log_p, log_q).mean()
        return LossTerms(ce + self.beta * kl, {"ce": ce.detach(), "kl": kl.detach()})
