"""AutoAttack, the standard version: four attacks without parameters to tune, one after another.

Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", ICML 2020, https://arxiv.org/abs/2003.01690

APGD on the cross-entropy, targeted APGD on the difference of logits ratio, targeted FAB, Square:
100 steps, 9 targets and 5000 queries, as published. Each attack sees only the examples that
the ones before it did not break.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defenses.attacks.apgd import apgd, apgd_targeted
from defenses.attacks.draws import numbering
from defenses.attacks.fab import fab
from defenses.attacks.inference import frozen
from defenses.attacks.square import square
from defenses.spec import Norm, Threat, require

DEFINITION = 1  # raised when a correction changes which examples withstand it
BATCH_SIZE = 250
CLASSES_FOR_DLR = 4

Attack = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, y, indices) -> x_adv


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How hard the four attacks try; the defaults are the published ones."""

    steps: int = 100
    targets: int = 9
    queries: int = 5000


STANDARD = Effort()


def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int = BATCH_SIZE,
    effort: Effort = STANDARD,
) -> Tensor:
    """Adversarial images where one of the four attacks breaks the example, else the image itself.

    ``x`` are images ``(N, C, H, W)`` in [0, 1], ``y`` their true labels. Random numbers of
    example k depend on ``seed`` and ``indices[k]`` (default: k) alone, so neither
    ``batch_size`` nor the other examples change its outcome, but for the rounding of the
    model's own sums. Where there are fewer than 10 classes, every wrong class is a target; with
    fewer than 4, where the ratio is not defined, targeted APGD ascends z_t - z_y instead: its
    steps depend on the direction of the gradient only, so the missing scale costs nothing.
    The model's state is left as it was.
    """
    return _run(model, x, y, eps, norm, seed, indices, batch_size, effort)[0]


def robust(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    seed: int = 0,
    indices: Tensor | None = None,
    batch_size: int = BATCH_SIZE,
    effort: Effort = STANDARD,
) -> Tensor:
    """Which examples withstand AutoAttack ``(N,)`` bool; misclassified ones do not.

    ``threat.step_size`` plays no part. Arguments and guarantees are those of ``autoattack``.
    """
    return _run(model, x, y, threat.eps, threat.norm, seed, indices, batch_size, effort)[1]


def _run(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    norm: Norm,
    seed: int,
    indices: Tensor | None,
    batch_size: int,
    effort: Effort,
) -> tuple[Tensor, Tensor]:
    """The adversarial images and which examples are still classified right."""
    require(batch_size >= 1, f"batch_size={batch_size} must be at least 1")
    x_adv = x.detach().clone()
    indices = numbering(x, indices)
    with frozen(model), torch.no_grad():
        logits = torch.cat([model(batch) for batch in x_adv.split(batch_size)])
        correct = logits.argmax(dim=1) == y
        for attack in _attacks(model, eps, norm, seed, effort, num_classes=logits.shape[1]):
            for rows in correct.nonzero().squeeze(1).split(batch_size):
                found = attack(x_adv[rows], y[rows], indices[rows])
                survives = model(found).argmax(dim=1) == y[rows]
                x_adv[rows[~survives]] = found[~survives]
                correct[rows] = survives
    return x_adv, correct


def _attacks(
    model: nn.Module, eps: float, norm: Norm, seed: int, effort: Effort, num_classes: int
) -> list[Attack]:
    loss = "dlr" if num_classes >= CLASSES_FOR_DLR else "margin"
    steps, targets = effort.steps, effort.targets

    def cross_entropy(x: Tensor, y: Tensor, i: Tensor) -> Tensor:
        return apgd(model, x, y, eps=eps, norm=norm, steps=steps, seed=seed, indices=i)

    def each_target(x: Tensor, y: Tensor, i: Tensor) -> Tensor:
        return apgd_targeted(
            model, x, y, eps=eps, norm=norm, steps=steps,
            loss=loss, targets=targets, seed=seed, indices=i,
        )  # fmt: skip

    def nearest_boundary(x: Tensor, y: Tensor, i: Tensor) -> Tensor:
        return fab(model, x, y, eps=eps, norm=norm, steps=steps, targets=targets)

    def black_box(x: Tensor, y: Tensor, i: Tensor) -> Tensor:
        return square(
            model, x, y, eps=eps, norm=norm,
            queries=effort.queries, rescale=False, seed=seed, indices=i,
        )  # fmt: skip

    return [cross_entropy, each_target, nearest_boundary, black_box]
