"""Claims of a user's own: a YAML list, each tested like the article's.

.. code-block:: yaml

    - measure: boundary_thickness     # required
      sign: "-"                       # required: the expected sign of tau
      target: gap                     # default
      where: {method: [at, mart]}     # levels of axes; default: all models
      min_abs_tau: 0.2                # default 0
      name: Thick boundaries help     # default: made from the rest
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from sweep.analysis import intervals
from sweep.analysis.claims import Outcome, Verdict
from sweep.analysis.correlation import coefficients
from sweep.analysis.table import axis_names, measure_names, sample
from sweep.axes import level_name

_SIGNS = {"+": 1, "-": -1, 1: 1, -1: -1}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """``sign`` * tau of ``measure`` with ``target`` is at least ``min_abs_tau``, ``where`` so."""

    measure: str
    sign: int
    target: str = "gap"
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    min_abs_tau: float = 0.0
    name: str = ""

    @property
    def statement(self) -> str:
        if self.name:
            return self.name
        limit = f" by at least {self.min_abs_tau:g}" if self.min_abs_tau else ""
        places = [f"{axis} is {' or '.join(levels)}" for axis, levels in self.where.items()]
        where = f" where {' and '.join(places)}" if places else ""
        word = "positive" if self.sign > 0 else "negative"
        return f"τ of {self.measure} with {self.target} is {word}{limit}{where}."


def read_claims(path: Path) -> list[Claim]:
    """Claims from a YAML file.

    Raises:
        ValueError: not a list of mappings; an unknown or missing key; a value out of range.
    """
    if not path.is_file():
        raise ValueError(f"there is no file of claims at {path}")
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list):
        raise ValueError(f"{path} must hold a list of claims, each with measure and sign")
    return [_claim(entry, f"{path}, claim {k}") for k, entry in enumerate(entries, 1)]


def _claim(entry: Any, place: str) -> Claim:
    valid = [f.name for f in fields(Claim)]
    if not isinstance(entry, dict):
        raise ValueError(f"{place} is not a mapping; keys: {', '.join(valid)}")
    unknown = [str(key) for key in entry if key not in valid]
    if unknown:
        raise ValueError(f"{place} has unknown key {unknown[0]!r}; keys: {', '.join(valid)}")
    missing = [key for key in ("measure", "sign") if key not in entry]
    if missing:
        raise ValueError(f"{place} has no {missing[0]!r}")
    if entry["sign"] not in _SIGNS or isinstance(entry["sign"], bool):
        raise ValueError(f"{place}: sign={entry['sign']!r} is not valid; choose from: '+', '-'")
    limit = entry.get("min_abs_tau", 0.0)
    if not isinstance(limit, int | float) or not 0 <= limit <= 1:
        raise ValueError(f"{place}: min_abs_tau={limit!r} must be a number from 0 to 1")
    where = entry.get("where") or {}
    if not isinstance(where, dict):
        raise ValueError(f"{place}: where must map axes to levels")
    return Claim(
        measure=str(entry["measure"]),
        sign=_SIGNS[entry["sign"]],
        target=str(entry.get("target", "gap")),
        where={str(axis): _levels(levels) for axis, levels in where.items()},
        min_abs_tau=float(limit),
        name=str(entry.get("name", "")),
    )


def _levels(value: Any) -> tuple[str, ...]:
    values: Sequence[Any] = value if isinstance(value, list) else [value]
    return tuple(level_name(v) for v in values)


def check_claim(table: pd.DataFrame, claim: Claim, *, draws: int = 1000, seed: int = 0) -> Verdict:
    """Holds if the interval of sign * tau is above ``min_abs_tau``, fails if it is below.

    Raises:
        ValueError: the table has no such measure, target, axis or level.
    """
    names = measure_names(table)
    if claim.measure not in names:
        raise ValueError(
            f"claim about {claim.measure!r}: no such measure; choose from: {', '.join(names)}"
        )
    chosen = table[_selected(table, claim)]
    data = sample(chosen, target=claim.target, axes=[])
    own = data.measures.index(claim.measure)
    result = coefficients(data, draws=draws, seed=seed)
    tau, trainings = result.tau[:, own], int(result.trainings[own])
    low, high = (float(end) for end in intervals.percentile(tau[1:], 0.95, trainings))
    least, most = sorted((claim.sign * low, claim.sign * high))
    outcome: Outcome = "undecided"
    if least >= claim.min_abs_tau and least > 0:
        outcome = "holds"
    elif most < claim.min_abs_tau or most <= 0:
        outcome = "does not hold"
    n = int((~np.isnan(data.x[:, own]) & ~np.isnan(data.y)).sum())
    return Verdict(claim.statement, outcome, float(tau[0]), low, high, n, "τ over these models")


def _selected(table: pd.DataFrame, claim: Claim) -> pd.Series[bool]:
    chosen = pd.Series(True, index=table.index)
    for axis, levels in claim.where.items():
        known = axis_names(table)
        if axis not in known:
            raise ValueError(
                f"claim about {claim.measure!r}: {axis!r} is no axis; "
                f"choose from: {', '.join(known)}"
            )
        present = table[axis].map(level_name)
        for level in levels:
            if not (present == level).any():
                raise ValueError(
                    f"claim about {claim.measure!r}: no model has {axis}={level}; "
                    f"choose from: {', '.join(sorted(present.unique()))}"
                )
        chosen &= present.isin(levels)
    return chosen
