"""What is known of a measure before its correlation is: family, and the sign its authors state.

Measures from outside the repository are not in the registry; nothing is expected of them.
"""

from __future__ import annotations

from measures import MEASURES, NOISY, SETS

ARTICLE = frozenset(SETS["paper"])  # the measures that Kim et al. (2023) compare


def family(name: str) -> str | None:
    """``margin``, ``flatness``, ...; None for a measure from outside the repository."""
    return MEASURES[name].family if name in MEASURES else None


def stated_sign(name: str) -> int | None:
    """Sign of tau with the gap that the measure's authors state; None: they state none."""
    if name not in MEASURES or MEASURES[name].sign_inferred:
        return None
    return MEASURES[name].expected_sign


def is_control(name: str) -> bool:
    """Whether it is there to be compared with (train accuracy), not as a proposed property."""
    return family(name) == "control"


def is_noisy(name: str) -> bool:
    """Whether two seeds of the measure ranked the same models at tau under 0.9."""
    return name in NOISY
