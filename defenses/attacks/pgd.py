"""Projected gradient descent, the attack of adversarial training and of every evaluation.

Madry, Makelov, Schmidt, Tsipras & Vladu, "Towards Deep Learning Models Resistant to Adversarial
Attacks", ICLR 2018, https://arxiv.org/abs/1706.06083
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from defenses.attacks.inference import Mode, frozen
from defenses.attacks.losses import AttackLoss, attack_loss
from defenses.attacks.threat import geometry
from defenses.spec import Norm, require


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    step_size: float,
    steps: int,
    norm: Norm = "linf",
    loss: str | AttackLoss = "ce",
    targeted: bool = False,
    random_start: bool = True,
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    mode: Mode = "eval",
) -> Tensor:
    """Adversarial images: ``steps`` steps of steepest ascent, each projected onto ball and box.

    ``x`` are images ``(N, C, H, W)`` in [0, 1], ``y`` labels ``(N,)``: the true ones, or with
    ``targeted`` the wanted ones, whose loss is then descended. ``eps`` and ``step_size`` are in
    units of ``norm``. ``loss`` is "ce", "margin" or a function (logits, y) -> loss per example.
    The ascent begins at ``start`` if given, else at a random point of the ball drawn from
    ``generator`` (None: torch's global one, as in torch's own functions), or at ``x`` without
    ``random_start``.

    The last iterate is returned, with the dtype of ``x``. The model is in eval mode during the
    call (or in train mode, for defenses that attack so); then every module has its own mode back,
    and neither batch-norm statistics nor ``.grad`` have changed. ``ValueError`` for a norm or loss
    that does not exist and for a negative ``eps``, ``step_size`` or ``steps``.
    """
    require(eps >= 0, f"eps={eps} must be at least 0")
    require(step_size >= 0, f"step_size={step_size} must be at least 0")
    require(steps >= 0, f"steps={steps} must be at least 0")
    ball = geometry(norm)
    objective = attack_loss(loss)
    signed_size = -step_size if targeted else step_size

    x = x.detach()
    if start is not None:
        x_adv = ball.project(start.detach().to(x.dtype), x, eps)
    elif random_start:
        x_adv = ball.random_start(x, eps, generator)
    else:
        x_adv = x

    with frozen(model, mode), torch.enable_grad():
        for _ in range(steps):
            x_adv = x_adv.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(objective(model(x_adv), y).sum(), x_adv)
            with torch.no_grad():
                x_adv = ball.project(ball.ascend(x_adv, gradient, signed_size), x, eps)
    return x_adv.detach()
