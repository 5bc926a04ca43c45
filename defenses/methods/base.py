"""What a training method is: how it makes adversarial images, and the loss it then minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.attacks.inference import Mode
from defenses.attacks.losses import AttackLoss, attack_loss
from defenses.attacks.pgd import pgd
from defenses.folding import folded
from defenses.spec import Norm, Precision

AUTOCAST_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
FP16_LOSS_SCALE = 1024.0  # keeps input gradients above fp16's smallest number; no step sees it


class LossTerms(NamedTuple):
    """``total`` is differentiated; ``terms`` are its parts, for the record. All are 0-dim means."""

    total: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class InnerAttack:
    """The inner maximisation of one training step: PGD at the study's threat.

    ``eps`` and ``step_size`` are in units of ``norm``. ``fold_batch_norm``: see
    ``defenses.folding``; without effect in "train" mode. ``generator`` is that step's own.
    """

    eps: float
    step_size: float
    steps: int
    norm: Norm = "linf"
    mode: Mode = "eval"
    precision: Precision = "fp32"
    fold_batch_norm: bool = False
    generator: torch.Generator | None = None

    @property
    def folds_batch_norm(self) -> bool:
        """In train mode batch norm is no constant that could be folded."""
        return self.fold_batch_norm and self.mode == "eval"

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        loss: str | AttackLoss = "ce",
        start: Tensor | None = None,
    ) -> Tensor:
        """Adversarial images from ``start``, or from a random point of the ball."""
        if self.precision == "fp16":
            loss = _scaled(attack_loss(loss))
        with autocast(x.device, self.precision):
            return pgd(
                model,
                x,
                y,
                eps=self.eps,
                step_size=self.step_size,
                steps=self.steps,
                norm=self.norm,
                loss=loss,
                start=start,
                generator=self.generator,
                mode=self.mode,
            )


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A defense. The fields of a subclass are its hyperparameters, and nothing else.

    ``needs_inner_maximisation``: False if no images are attacked while training.
    ``attack_mode``: the model's mode while it is attacked, as in the authors' code.
    ``compilable``: False if gradients are differentiated, which compiled networks cannot.
    ``definition`` enters the ids of trainings: raise it when a correction changes results.
    ``loss_passes``, ``craft_passes``: for estimates, what ``objective`` with its backward pass
    costs, and ``craft`` besides the attack's steps, in forward passes of the network; a backward
    pass is two.
    """

    needs_inner_maximisation: ClassVar[bool] = True
    attack_mode: ClassVar[Mode] = "eval"
    compilable: ClassVar[bool] = True
    definition: ClassVar[int] = 1
    loss_passes: ClassVar[float] = 3
    craft_passes: ClassVar[float] = 0

    @abstractmethod
    def craft(self, model: nn.Module, x: Tensor, y: Tensor, attack: InnerAttack) -> Tensor:
        """The images to train on besides ``x``, as constants; usually one for each of ``x``.

        Runs the model in ``attack_mode`` only, where batch norm may be folded meanwhile.
        """

    @abstractmethod
    def objective(self, model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> LossTerms:
        """The loss of the model, in training mode, on clean and crafted images."""

    def adversarial(self, model: nn.Module, x: Tensor, y: Tensor, attack: InnerAttack) -> Tensor:
        """``craft``, on the network that the attack asks for: batch norm folded, or as it is."""
        with folded(model) if attack.folds_batch_norm else nullcontext():
            return self.craft(model, x, y, attack)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, attack: InnerAttack) -> LossTerms:
        """Craft, then evaluate the objective: one plain training step's loss."""
        return self.objective(model, x, self.adversarial(model, x, y, attack), y)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Mixed precision on ``device``; with "fp32" a context in which nothing is cast."""
    return torch.autocast(
        device.type, dtype=AUTOCAST_TYPES.get(precision), enabled=precision != "fp32"
    )


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the classes, ``(N, K)``: in fp32 where a network ran in half precision."""
    half = logits.dtype in (torch.bfloat16, torch.float16)
    return F.log_softmax(logits, dim=1, dtype=torch.float32 if half else None)


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of each example, from log-probabilities ``(N, K)``; gradients reach both."""
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def _scaled(loss: AttackLoss) -> AttackLoss:
    return lambda logits, y: FP16_LOSS_SCALE * loss(logits, y)
