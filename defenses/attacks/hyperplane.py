"""The nearest point of a hyperplane inside the box [0, 1], in the l-infinity and the l2 norm.

For normal w and excess c = w·x - b, the smallest delta with w·delta = -c and 0 <= x + delta <= 1
moves every coordinate against sign(c w) until it meets the box: by min(level, room_j) in
l-infinity, by min(level |w_j|, room_j) in l2. One number per example, the level, is unknown. In it
w·delta is increasing, concave and piecewise linear, so Newton's method from 0 never overshoots and
ends on the exact piece after a few steps, without sorting the coordinates.
"""

from __future__ import annotations

import torch
from torch import Tensor

from defenses.attacks.threat import lengths
from defenses.spec import Norm

MOST_STEPS = 100  # seen: under 15; only a bound, for images built to be slow
CLOSE_ENOUGH = 1e-6  # of |c|: the rounding error of a sum in single precision


def to_hyperplane(x: Tensor, normal: Tensor, excess: Tensor, norm: Norm) -> Tensor:
    """Smallest move of ``x`` ``(N, ...)`` onto the hyperplane, or as close as the box lets it.

    ``normal`` has the shape of ``x``, ``excess`` is w·x - b ``(N,)``. Where the box does not
    meet the hyperplane, every coordinate goes to its border. A zero normal gives no move.
    """
    direction = -excess.sign().view(-1, *[1] * (x.ndim - 1)) * normal.sign()
    room = torch.where(direction > 0, 1 - x, x)
    speed = normal.abs() if norm == "l2" else torch.ones_like(normal)
    gain = (speed * normal.abs()).flatten(1)
    limit = (room / speed).flatten(1)
    level = _level(gain, torch.where(gain > 0, limit, 0), excess.abs())
    travel = torch.minimum(speed * level.view(-1, *[1] * (x.ndim - 1)), room)
    return direction * travel.nan_to_num(0)


def _level(gain: Tensor, limit: Tensor, wanted: Tensor) -> Tensor:
    """The level at which sum_j gain_j min(level, limit_j) is ``wanted`` ``(N,)``; inf if never."""
    level = torch.zeros_like(wanted)
    for _ in range(MOST_STEPS):
        missing = wanted - (gain * torch.minimum(level[:, None], limit)).sum(dim=1)
        slope = (gain * (limit > level[:, None])).sum(dim=1)
        unfinished = missing > CLOSE_ENOUGH * wanted
        if not unfinished.any():
            break
        level = torch.where(unfinished, level + missing / slope, level)
    return level


def distances(delta: Tensor, norm: Norm) -> Tensor:
    """Norm of each example's perturbation ``(N,)``."""
    if norm == "linf":
        return delta.flatten(1).abs().amax(dim=1)
    return lengths(delta).flatten()
