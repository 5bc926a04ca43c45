"""The largest weight noise that a model's accuracy survives."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from measures.engine.estimate import standard_error
from measures.engine.measure import Undefined

Accuracy = Callable[[float], Tensor]  # noise scale -> accuracy of each draw, (D,)


def largest_scale(
    accuracy: Accuracy, clean: float, *, drop: float, largest: float, steps: int
) -> tuple[float, float]:
    """(log σ, its Monte-Carlo standard error): the σ where the mean accuracy falls by ``drop``.

    ``accuracy`` uses the same draws at every σ (common random numbers), so the search is over
    one curve. Bisection of log σ below ``largest``: ``steps`` halvings of 2¹⁰, then
    interpolation. ``Undefined`` when the accuracy survives ``largest`` (the value would be
    censored), or does not have that much to lose.
    """
    if clean < drop:
        raise Undefined(f"accuracy {clean:.3f} cannot fall by {drop:g}")
    target = clean - drop
    seen: dict[float, Tensor] = {}

    def above(log_scale: float) -> bool:
        seen[log_scale] = accuracy(math.exp(log_scale)).double()
        return float(seen[log_scale].mean()) >= target

    low, high = math.log(largest) - 10 * math.log(2), math.log(largest)
    if above(high):
        raise Undefined(f"accuracy survives weight noise of {largest:g}: the search is censored")
    while not above(low):
        high, low = low, low - 10 * math.log(2)
        if low < -60:
            raise Undefined("accuracy falls under the smallest weight noise")
    for _ in range(steps):
        middle = (low + high) / 2
        if above(middle):
            low = middle
        else:
            high = middle
    return crossing(seen, low, high, target), crossing_error(seen, low, target)


def crossing(seen: dict[float, Tensor], low: float, high: float, target: float) -> float:
    """Where the mean accuracy crosses ``target`` between two neighbouring points."""
    at_low, at_high = float(seen[low].mean()), float(seen[high].mean())
    return low + (high - low) * (at_low - target) / (at_low - at_high)


def crossing_error(seen: dict[float, Tensor], at: float, target: float) -> float:
    """Standard error of the crossing: that of the mean accuracy there, over the curve's slope.

    The slope is taken between the nearest points at least 15 % away on either side, since
    that of two neighbouring points is mostly noise.
    """
    left = max(s for s in seen if s <= at - 0.15) if any(s <= at - 0.15 for s in seen) else at
    right = min(s for s in seen if s >= at + 0.15)
    slope = float(seen[left].mean() - seen[right].mean()) / (right - left)
    return standard_error(seen[at]) / slope if slope > 0 else math.nan
