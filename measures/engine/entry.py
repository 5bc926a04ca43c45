"""How a line of the registry is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from measures.engine.measure import Estimate, Family, Measure, Need

Sign = Literal[1, -1]


class Inferred(NamedTuple):
    """An expected sign that the measure's authors do not state, or not of the gap: our reading.

    Losses, probability margins and gradients on PGD examples follow robust train accuracy, half of
    the gap. What is known to go with robustness may narrow the gap. Of a Hessian, and of adaptive
    sharpness, whose authors doubt it, flatness theory expects what it does of all sharpness.
    """

    sign: Sign


def entry(
    function: Callable[..., float | Estimate],
    family: Family,
    needs: tuple[Need, ...],
    sign: Sign | Inferred | None,
    *,
    stochastic: bool = False,
    version: int = 1,
    **variant: Any,
) -> Measure:
    """One line of the list; see ``Measure`` for the fields."""
    return Measure(
        function=function,
        family=family,
        needs=frozenset(needs),
        expected_sign=sign.sign if isinstance(sign, Inferred) else sign,
        sign_inferred=isinstance(sign, Inferred),
        stochastic=stochastic,
        version=version,
        variant=variant,
    )
