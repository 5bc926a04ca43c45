"""Auto-PGD: gradient ascent with momentum that finds its own step size.

Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks", ICML 2020, https://arxiv.org/abs/2003.01690 (algorithm 1, section 4)

The step size starts at 2 eps. At checkpoints it is halved, and the ascent resumed from the best
point so far, for examples whose loss rose in too few of the latest steps or gained nothing since
the last checkpoint. The authors carry on with examples that are broken; here those leave the
batch, which changes nobody's outcome and saves most of the time on weak models.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from defenses.attacks.dlr import TargetedLoss, dlr, likeliest_wrong, targeted_loss
from defenses.attacks.draws import normal, numbering, uniform
from defenses.attacks.inference import frozen
from defenses.attacks.losses import AttackLoss, attack_loss
from defenses.attacks.threat import Geometry, geometry, lengths
from defenses.spec import Norm, require

MOMENTUM = 0.75  # weight of the new step; the rest repeats the previous one
ENOUGH_RISES = 0.75  # the step size stays if the loss rose in a larger share of the steps


def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    steps: int = 100,
    loss: str | AttackLoss = "ce",
    restarts: int = 1,
    seed: int = 0,
    indices: Tensor | None = None,
) -> Tensor:
    """Adversarial images: for each example the first misclassified iterate, else the best one.

    ``x`` are images ``(N, C, H, W)`` in [0, 1], ``y`` their true labels. ``loss`` is "ce", "dlr"
    (at least 3 classes), "margin" or a function (logits, y) -> loss per example; the best
    iterate has the highest. Every restart begins on the surface of the ball. The random numbers
    of example k depend on ``seed`` and ``indices[k]`` (default: k) alone. The model's state is
    left as it was. Images that are misclassified already come back unchanged.
    """
    objective = dlr if loss == "dlr" else attack_loss(loss)
    stream = f"apgd {loss}" if isinstance(loss, str) else "apgd"
    with frozen(model):
        search = _Search(model, x, y, eps, norm, steps, seed, stream, numbering(x, indices))
        for restart in range(restarts):
            search.ascend(lambda logits, y, _: objective(logits, y), target=y, counter=restart)
    return search.x_adv


def apgd_targeted(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    norm: Norm = "linf",
    steps: int = 100,
    loss: str = "dlr",
    targets: int = 9,
    seed: int = 0,
    indices: Tensor | None = None,
) -> Tensor:
    """As ``apgd``, once towards each of the ``targets`` likeliest wrong classes of the image.

    ``y`` are the true labels. ``loss`` is "dlr" (at least 4 classes) or "margin". With fewer
    than ``targets`` wrong classes, each is tried once.
    """
    objective = targeted_loss(loss)
    stream = f"apgd-t {loss}"
    with frozen(model):
        search = _Search(model, x, y, eps, norm, steps, seed, stream, numbering(x, indices))
        ranking = likeliest_wrong(search.clean_logits, y, targets)
        for rank, target in enumerate(ranking.unbind(dim=1)):
            search.ascend(objective, target, counter=rank)
    return search.x_adv


def windows(steps: int) -> list[int | None]:
    """For each step the number of steps since the last checkpoint if one follows it, else None.

    The first window is 22 % of the steps; each is 3 % shorter than the one before, down to 6 %.
    """
    length = max(int(0.22 * steps), 1)
    plan: list[int | None] = []
    while len(plan) < steps:
        plan += [None] * (length - 1) + [length]
        length = max(length - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return plan[:steps]


def surface_point(
    x: Tensor, eps: float, norm: Norm, seed: int, stream: str, indices: Tensor, counter: int
) -> Tensor:
    """Random points at distance ``eps`` of the images, clamped to the box: each example's own."""
    if norm == "linf":
        direction = 2 * uniform(seed, stream, indices, x.shape[1:], counter) - 1
        length = direction.flatten(1).abs().amax(dim=1).view(-1, 1, 1, 1)
    else:
        direction = normal(seed, stream, indices, x.shape[1:], counter)
        length = lengths(direction)
    return (x + (eps / length * direction).to(x.dtype)).clamp(0, 1)


class _Search:
    """What one call has found: for each example the best image yet, and whether it is broken."""

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        eps: float,
        norm: Norm,
        steps: int,
        seed: int,
        stream: str,
        indices: Tensor,
    ) -> None:
        require(eps >= 0, f"eps={eps} must be at least 0")
        require(steps >= 1, f"steps={steps} must be at least 1")
        self.model, self.eps, self.norm, self.steps = model, eps, norm, steps
        self.ball = geometry(norm)
        self.seed, self.stream, self.indices = seed, stream, indices
        self.x, self.y = x.detach(), y
        with torch.no_grad():
            self.clean_logits = model(self.x)
        self.broken = self.clean_logits.argmax(dim=1) != y
        self.x_adv = self.x.clone()
        self.best_loss = self.clean_logits.new_full((len(x),), -torch.inf)

    def ascend(self, objective: TargetedLoss, target: Tensor, counter: int) -> None:
        """One ascent, from a start of its own, of each example that is not broken yet."""
        rows = (~self.broken).nonzero().squeeze(1)
        if len(rows) == 0:
            return
        x, y, target = self.x[rows], self.y[rows], target[rows]
        start = surface_point(
            x, self.eps, self.norm, self.seed, self.stream, self.indices[rows], counter
        )
        loss, gradient, wrong = evaluate(self.model, objective, start, y, target)
        ascent = _Ascent(
            rows=rows, x=x, y=y, target=target, x_adv=start, previous=start, gradient=gradient,
            loss=loss, x_best=start, best_gradient=gradient, best_loss=loss,
            step_size=torch.full_like(start[:, :1, :1, :1], 2 * self.eps),
            rises=torch.zeros_like(rows), halved=torch.ones_like(wrong), checked_loss=loss,
        )  # fmt: skip
        ascent = self._leave_broken(ascent, wrong)
        for step, window in enumerate(windows(self.steps)):
            if len(ascent.rows) == 0:
                return
            wrong = ascent.step(self.model, objective, self.ball, self.eps, plain=step == 0)
            ascent = self._leave_broken(ascent, wrong)
            if window is not None:
                ascent.adapt(window)
        better = ascent.best_loss > self.best_loss[ascent.rows]
        self.x_adv[ascent.rows[better]] = ascent.x_best[better]
        self.best_loss[ascent.rows[better]] = ascent.best_loss[better]

    def _leave_broken(self, ascent: _Ascent, wrong: Tensor) -> _Ascent:
        """Record the examples whose latest iterate is misclassified; the others go on."""
        if not wrong.any():
            return ascent
        self.x_adv[ascent.rows[wrong]] = ascent.x_adv[wrong]
        self.broken[ascent.rows[wrong]] = True
        return ascent.select(~wrong)


@dataclass
class _Ascent:
    """The state of one ascent: tensors with one row per example that is still attacked."""

    rows: Tensor  # which examples of the call
    x: Tensor
    y: Tensor
    target: Tensor
    x_adv: Tensor
    previous: Tensor  # the iterate before ``x_adv``
    gradient: Tensor  # at ``x_adv``
    loss: Tensor
    x_best: Tensor
    best_gradient: Tensor  # at ``x_best``
    best_loss: Tensor
    step_size: Tensor  # (n, 1, 1, 1)
    rises: Tensor  # steps since the last checkpoint that raised the loss
    halved: Tensor  # whether the last checkpoint halved the step size (true before the first)
    checked_loss: Tensor  # best loss at the last checkpoint

    def select(self, mask: Tensor) -> _Ascent:
        return _Ascent(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    def step(
        self,
        model: nn.Module,
        objective: TargetedLoss,
        ball: type[Geometry],
        eps: float,
        *,
        plain: bool,
    ) -> Tensor:
        """One step, with momentum unless ``plain``. Returns which examples it breaks."""
        ahead = ball.project(ball.ascend(self.x_adv, self.gradient, self.step_size), self.x, eps)
        if not plain:
            ahead = self.x_adv + MOMENTUM * (ahead - self.x_adv)
            ahead += (1 - MOMENTUM) * (self.x_adv - self.previous)
            ahead = ball.project(ahead, self.x, eps)
        self.previous, self.x_adv = self.x_adv, ahead
        loss, self.gradient, wrong = evaluate(model, objective, ahead, self.y, self.target)
        self.rises = self.rises + (loss > self.loss)
        self.loss = loss
        better = loss > self.best_loss
        self.x_best = _choose(better, self.x_adv, self.x_best)
        self.best_gradient = _choose(better, self.gradient, self.best_gradient)
        self.best_loss = torch.where(better, loss, self.best_loss)
        return wrong

    def adapt(self, window: int) -> None:
        """The checkpoint after ``window`` steps: conditions 1 and 2 of section 3 of the paper."""
        oscillates = self.rises <= ENOUGH_RISES * window
        stuck = ~self.halved & (self.best_loss <= self.checked_loss)
        self.halved = oscillates | stuck
        self.step_size = _choose(self.halved, self.step_size / 2, self.step_size)
        self.x_adv = _choose(self.halved, self.x_best, self.x_adv)
        self.gradient = _choose(self.halved, self.best_gradient, self.gradient)
        self.rises = torch.zeros_like(self.rises)
        self.checked_loss = self.best_loss


def evaluate(
    model: nn.Module, objective: TargetedLoss, x_adv: Tensor, y: Tensor, target: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss per example, its gradient in the images, and whether each image is misclassified."""
    with torch.enable_grad():
        x_adv = x_adv.detach().requires_grad_(True)
        logits = model(x_adv)
        loss = objective(logits, y, target)
        (gradient,) = torch.autograd.grad(loss.sum(), x_adv)
    return loss.detach(), gradient, logits.argmax(dim=1) != y


def _choose(mask: Tensor, chosen: Tensor, other: Tensor) -> Tensor:
    return torch.where(mask.view(-1, 1, 1, 1), chosen, other)
