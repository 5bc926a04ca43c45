"""What is known of a measure before its correlation is: family, and the sign its authors expect.

Measures from outside the repository are not in the registry; nothing is expected of them.
"""

from __future__ import annotations

from measures import MEASURES, NOISY


def family(name: str) -> str | None:
    """``margin``, ``flatness``, ...; None for a measure from outside the repository."""
    return MEASURES[name].family if name in MEASURES else None


def expected_sign(name: str) -> int | None:
    """Sign of tau with the gap that the measure's authors expect; None: they claim none."""
    return MEASURES[name].expected_sign if name in MEASURES else None


def is_control(name: str) -> bool:
    """Whether it is there to be compared with (train accuracy), not as a proposed property."""
    return family(name) == "control"


def is_noisy(name: str) -> bool:
    """Whether two seeds of the measure ranked the same models at tau under 0.9."""
    return name in NOISY
