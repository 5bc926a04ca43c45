"""Fast Adaptive Boundary attack: the nearest misclassified image, not the worst one of a ball.

Croce & Hein, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack",
ICML 2020, https://arxiv.org/abs/1907.02044 (algorithm 1)

Each step takes the decision boundary to be the plane that touches it, projects the iterate and
the original image onto it within the box, and goes to a point between the two. Where that is
misclassified, the next step begins part of the way back to the original.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from defenses.attacks.dlr import TINY, likeliest_wrong
from defenses.attacks.hyperplane import distances, to_hyperplane
from defenses.attacks.inference import frozen
from defenses.spec import Norm, require, require_choice

OVERSHOOT = 1.05  # eta: projections go this much too far, to end beyond the boundary
MOST_BIAS = 0.1  # alpha_max: largest weight of the original image's projection
STEP_BACK = 0.9  # beta: how much of a misclassified iterate's perturbation is kept
SHORTEST = 1e-8  # keeps the weights of the two projections finite


def fab(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | None = None,
    norm: Norm = "linf",
    steps: int = 100,
    targets: int | None = None,
) -> Tensor:
    """Adversarial images: for each example the nearest misclassified image that was found.

    ``x`` are images ``(N, C, H, W)`` in [0, 1], ``y`` their true labels. With ``eps`` an example
    is done once it is broken within that distance, and comes back unchanged if it never is, so
    that every image is inside the ball. Without ``eps`` all steps are made, whatever the
    distance.

    With ``targets``, the boundary to each of the ``targets`` likeliest wrong classes of the
    image (all, if there are fewer) is attacked in turn, at one gradient a step; without, always
    the one that seems nearest, at as many gradients a step as there are classes.

    The attack is deterministic. The model's state is left as it was. Images that are
    misclassified already come back unchanged.
    """
    require(eps is None or eps >= 0, f"eps={eps} must be at least 0")
    require(steps >= 1, f"steps={steps} must be at least 1")
    require_choice("norm", norm, ("linf", "l2"))
    enough = -1.0 if eps is None else eps
    x = x.detach()
    x_adv = x.clone()
    with frozen(model):
        with torch.no_grad():
            logits = model(x)
        wrong = logits.argmax(dim=1) != y
        nearest = torch.full_like(logits[:, 0], torch.inf)
        goals: list[Tensor | None] = [None]
        if targets is not None:
            goals = list(likeliest_wrong(logits, y, targets).unbind(dim=1))
        for goal in goals:
            rows = (~wrong & (nearest > enough)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            target = None if goal is None else goal[rows]
            found, distance = _approach(model, x[rows], y[rows], target, norm, steps, enough)
            closer = distance < nearest[rows]
            x_adv[rows[closer]] = found[closer]
            nearest[rows[closer]] = distance[closer]
    if eps is None:
        return x_adv
    return torch.where((nearest <= eps).view(-1, 1, 1, 1), x_adv, x)


@dataclass
class _Plane:
    """The linearised decision boundary near each point: value + normal · (z - point) = 0."""

    point: Tensor
    value: Tensor  # (n,), negative on the side of the true class
    normal: Tensor
    wrong: Tensor  # whether the point is misclassified

    def select(self, mask: Tensor) -> _Plane:
        return _Plane(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})

    def replace(self, rows: Tensor, other: _Plane) -> None:
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(other, f.name)


def _approach(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    target: Tensor | None,
    norm: Norm,
    steps: int,
    enough: float,
) -> tuple[Tensor, Tensor]:
    """Nearest misclassified images found and their distances (inf where there is none)."""
    nearest = x.clone()
    distance = torch.full_like(x[:, 0, 0, 0], torch.inf)
    rows = torch.arange(len(x), device=x.device)  # those still attacked

    def linearise(point: Tensor, rows: Tensor) -> _Plane:
        return _linearise(model, point, y[rows], None if target is None else target[rows], norm)

    plane = linearise(x, rows)
    for _ in range(steps):
        plane = linearise(_between(x[rows], plane, norm), rows)
        if not plane.wrong.any():
            continue
        reached = distances(plane.point - x[rows], norm)
        closer = plane.wrong & (reached < distance[rows])
        nearest[rows[closer]] = plane.point[closer]
        distance[rows[closer]] = reached[closer]

        going_on = distance[rows] > enough
        rows, plane = rows[going_on], plane.select(going_on)
        if len(rows) == 0:
            break
        hits = plane.wrong.nonzero().squeeze(1)
        if len(hits) > 0:
            original = x[rows[hits]]
            back = original + STEP_BACK * (plane.point[hits] - original)
            plane.replace(hits, linearise(back, rows[hits]))
    return nearest, distance


def _between(x: Tensor, plane: _Plane, norm: Norm) -> Tensor:
    """A point between the projections of the iterate and of the original ``x`` onto the plane."""
    value_at_x = plane.value + (plane.normal * (x - plane.point)).flatten(1).sum(dim=1)
    to_plane = to_hyperplane(plane.point, plane.normal, plane.value, norm)
    x_to_plane = to_hyperplane(x, plane.normal, value_at_x, norm)
    near = distances(to_plane, norm).clamp_min(SHORTEST)
    far = distances(x_to_plane, norm).clamp_min(SHORTEST)
    bias = (near / (near + far)).clamp_max(MOST_BIAS).view(-1, 1, 1, 1)
    ahead = plane.point + OVERSHOOT * to_plane
    unbiased = x + OVERSHOOT * x_to_plane
    return ((1 - bias) * ahead + bias * unbiased).clamp(0, 1)


def _linearise(
    model: nn.Module, point: Tensor, y: Tensor, target: Tensor | None, norm: Norm
) -> _Plane:
    """The plane z_t - z_y = 0 of each point, t its target or the class whose plane is nearest."""
    with torch.enable_grad():
        variable = point.detach().requires_grad_(True)
        logits = model(variable)
        wrong = logits.argmax(dim=1) != y
        true = logits.gather(1, y[:, None])
        if target is not None:
            value = (logits.gather(1, target[:, None]) - true).squeeze(1)
            (normal,) = torch.autograd.grad(value.sum(), variable)
            return _Plane(point, value.detach(), normal, wrong)
        values = logits - true
        normals = torch.stack(
            [
                torch.autograd.grad(column.sum(), variable, retain_graph=True)[0]
                for column in values.unbind(dim=1)
            ],
            dim=1,
        )
    values = values.detach()
    steepness = normals.flatten(2).norm(p=1 if norm == "linf" else 2, dim=2).clamp_min(TINY)
    gap = (values.abs() / steepness).scatter(1, y[:, None], torch.inf)
    nearest = gap.argmin(dim=1)
    rows = torch.arange(len(y), device=y.device)
    return _Plane(point, values[rows, nearest], normals[rows, nearest], wrong)
