"""The largest weight noise that a model's accuracy survives."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from measures.engine.estimate import standard_error
from measures.engine.measure import Undefined

REACH = 0.2
SMALLEST_SLOPE = 1e-3  # a curve that does not fall leaves the crossing undetermined: a huge error

Accuracy = Callable[[float], Tensor]  # noise scale -> accuracy of each draw, (D,)


def largest_scale(
    accuracy: Accuracy, clean: float, *, drop: float, largest: float, steps: int
) -> tuple[float, float]:
    """(log σ, its Monte-Carlo standard error): the σ where the mean accuracy falls by ``drop``.

    ``accuracy`` uses the same draws at every σ (common random numbers), so the search is over
    one curve. Bisection of log σ below ``largest``: ``steps`` halvings of a factor of 2¹⁰, then
    interpolation. The error is that of the mean accuracy there over the slope of the curve.
    ``Undefined`` when the accuracy survives ``largest`` (the value would be censored), or does
    not have that much to lose.
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
    above_low, above_high = (float(seen[s].mean()) - target for s in (low, high))
    share = above_low / (above_low - above_high)
    at = low + share * (high - low)
    draws = seen[low] + share * (seen[high] - seen[low])
    return at, standard_error(draws) / slope(accuracy, at)


def slope(accuracy: Accuracy, at: float) -> float:
    """How fast the mean accuracy falls with log σ, over a range wide enough to be no noise."""
    left, right = (float(accuracy(math.exp(at + h)).double().mean()) for h in (-REACH, REACH))
    return max((left - right) / (2 * REACH), SMALLEST_SLOPE)
