"""Numbers and lists as people read them."""

from __future__ import annotations

import math

import pytest

from sweep.analysis.wording import compact, count, duration, interval, listed, percent, signed


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (signed(0.434), "+0.43"),
        (signed(-0.07), "−0.07"),
        (signed(-0.001), "0.00"),
        (signed(math.nan), "–"),
        (interval(-0.5, 0.25), "−0.50 to +0.25"),
        (interval(math.nan, math.nan), "–"),
        (percent(0.1234), "12.3 %"),
        (count(1, "model"), "1 model"),
        (count(1344, "model"), "1,344 models"),
        (listed(["a"]), "a"),
        (listed(["a", "b", "c"]), "a, b and c"),
        (listed(["a", "b"], "or"), "a or b"),
        (duration(0.214), "0.21 s"),
        (duration(45), "45 s"),
        (duration(3600), "60 min"),
        (duration(3600 * 3.42), "3.4 h"),
        (duration(3600 * 1234), "1,234 h"),
        (compact(-0.012345), "−0.01235"),
    ],
)
def test_wording(written: str, expected: str) -> None:
    assert written == expected
