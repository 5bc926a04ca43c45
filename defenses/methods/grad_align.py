"""GradAlign: keeps one-step adversarial training from failing all at once.

Andriushchenko & Flammarion, "Understanding and Improving Fast Adversarial Training", NeurIPS 2020,
https://arxiv.org/abs/2007.02617, equation 5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.attacks.inference import Mode
from defenses.attacks.threat import geometry
from defenses.methods.base import InnerAttack, LossTerms, Method
from defenses.spec import require


@dataclass(frozen=True, kw_only=True)
class GradAlign(Method):
    """CE(h(x'), y) + weight (1 - cos(grad CE(h(x), y), grad CE(h(x + eta), y))).

    Gradients are those to the image, eta is a random point of the ball. Where the two directions
    agree the loss is nearly linear in the ball, and a single step (steps=1) finds its maximum.
    ``weight`` is the paper's lambda: 0.2 at 8/255 on CIFAR-10.
    """

    attack_mode: ClassVar[Mode] = "train"
    compilable: ClassVar[bool] = False
    loss_passes: ClassVar[float] = 15  # two gradients to images, differentiated

    weight: float = 0.2

    def __post_init__(self) -> None:
        require(self.weight >= 0, f"weight={self.weight} must be at least 0")

    def craft(self, model: nn.Module, x: Tensor, y: Tensor, attack: InnerAttack) -> Tensor:
        near = geometry(attack.norm).random_start(x, attack.eps, attack.generator)
        return torch.cat([attack(model, x, y), near])

    def objective(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossTerms:
        attacked, near = x_adv.chunk(2)
        ce = F.cross_entropy(model(attacked), y)
        here, there = input_gradient(model, x, y), input_gradient(model, near, y)
        misalignment = 1 - F.cosine_similarity(here, there, dim=1).mean()
        total = ce + self.weight * misalignment
        return LossTerms(total, {"ce_adv": ce.detach(), "misalignment": misalignment.detach()})


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of each image's cross-entropy to that image, ``(N, C H W)``, differentiable."""
    x = x.detach().requires_grad_(True)
    loss = F.cross_entropy(model(x), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    return gradient.flatten(1)
