"""Strict conversion: round trips, fractions, and errors that name key and valid choices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from sweep.convert import to_dataclass, to_plain


@dataclass(frozen=True, kw_only=True)
class Inner:
    eps: float
    norm: Literal["linf", "l2"] = "linf"


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    steps: int | None = None
    flag: bool = False
    milestones: tuple[float, ...] = (0.5,)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)


def test_round_trip() -> None:
    data = {
        "inner": {"eps": 0.25, "norm": "l2"},
        "steps": None,
        "flag": True,
        "milestones": [0.25, 0.5],
        "parameters": {"a": {"b": [1, None]}},
    }
    assert to_plain(to_dataclass(Outer, data)) == data


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("5e-4", 5e-4), (1, 1.0)])
def test_numbers_as_people_write_them(text: object, value: float) -> None:
    assert to_dataclass(Inner, {"eps": text}).eps == value


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inner": {"eps": "much"}}, "inner.eps='much' must be a number"),
        ({"inner": {"eps": "8/0"}}, "divides by zero"),
        ({"inner": {"eps": "nan"}}, "inner.eps='nan' must be a finite number"),
        ({"inner": {"eps": float("inf")}}, "must be a finite number"),
        ({"inner": {"eps": True}}, "inner.eps=True must be a number"),
        ({"inner": {"eps": 1, "norm": "l1"}}, "choose one of: linf, l2"),
        ({"inner": {"eps": 1, "nrom": "l2"}}, "did you mean inner.norm"),
        ({"inner": {}}, "inner.eps is missing"),
        ({"inner": {"eps": 1}, "steps": 1.5}, "steps=1.5 must be a whole number"),
        ({"inner": {"eps": 1}, "steps": True}, "steps=True must be a whole number"),
        ({"inner": {"eps": 1}, "flag": "yes"}, "flag='yes' must be true or false"),
        ({"inner": {"eps": 1}, "milestones": 0.5}, "milestones=0.5 must be a list"),
        ({"inner": {"eps": 1}, "milestones": ["x"]}, r"milestones\[0\]='x' must be a number"),
        ({"inner": 3}, "inner must be a mapping"),
    ],
)
def test_mistakes(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_dataclass(Outer, data)
