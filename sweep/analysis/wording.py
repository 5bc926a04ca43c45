"""How numbers and lists are written for people, in the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Sequence


def signed(value: float, digits: int = 2) -> str:
    """``+0.43``, ``−0.07`` with a true minus sign; an en dash where undefined."""
    if math.isnan(value):
        return "–"
    rounded = round(value, digits) or 0.0  # no sign for what is shown as zero
    text = f"{rounded:+.{digits}f}" if rounded else f"{rounded:.{digits}f}"
    return text.replace("-", "−")


def interval(low: float, high: float) -> str:
    """``+0.31 to +0.52``."""
    return "–" if math.isnan(low) else f"{signed(low)} to {signed(high)}"


def percent(fraction: float, digits: int = 1) -> str:
    """``12.3 %`` of a fraction."""
    return "–" if math.isnan(fraction) else f"{100 * fraction:.{digits}f} %"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1 model``, ``1,344 models``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(items: Sequence[str], conjunction: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def duration(seconds: float) -> str:
    """``0.21 s``, ``45 s``, ``12 min``, ``3.4 h``, ``1,234 h``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"


def compact(value: float) -> str:
    """Up to four significant digits: ``0.01234``, ``12.34``, ``1.234e+05``."""
    return "–" if math.isnan(value) else f"{value:.4g}".replace("-", "−")
