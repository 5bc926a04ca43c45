"""Does the ranking of measures carry over from one study to another?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sweep.analysis import intervals
from sweep.analysis.kendall import bootstrap_weights, weighted_tau
from sweep.analysis.selection import select
from sweep.analysis.table import Floats, Ints, measure_names, sample

MIN_MEASURES = 5  # with fewer, not even a perfect agreement of rankings is significant at 5 %


@dataclass(frozen=True)
class Comparison:
    """tau_b between the measures' tau on study ``a`` and on study ``b``, with its interval.

    ``frame``: indexed by measure, ``tau_a tau_a_low tau_a_high n_a``, the same for b, and
    ``same_sign``: both intervals exclude 0 and agree (True), disagree (False), or NA.
    """

    a: str
    b: str
    target: str
    tau: float
    low: float
    high: float
    frame: pd.DataFrame

    @property
    def verdict(self) -> str:
        if len(self.frame) < MIN_MEASURES or np.isnan(self.tau):
            return "undecided"
        return "holds" if self.low > 0 else "does not hold" if self.high <= 0 else "undecided"

    @property
    def sentence(self) -> str:
        """The result in words."""
        agree = int((self.frame["same_sign"] == True).sum())  # noqa: E712  (nullable)
        turn = int((self.frame["same_sign"] == False).sum())  # noqa: E712
        return (
            f"Over {len(self.frame)} measures, τ between their τ on {self.a} and on {self.b} is "
            f"{self.tau:+.2f} (95 % interval {self.low:+.2f} to {self.high:+.2f}). "
            f"{agree} keep a clear sign, {turn} turn it."
        ).replace("-", "−")


def compare(
    table_a: pd.DataFrame,
    table_b: pd.DataFrame,
    *,
    names: tuple[str, str] = ("a", "b"),
    target: str = "gap",
    draws: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare the measures' tau on two studies (another data set, eps, norm, or public models).

    Of either table the models that count are used (:func:`sweep.analysis.select`).
    The interval covers both sources of chance: the trainings of either study are resampled, and
    so are the measures that the two are compared on.

    Raises:
        ValueError: the studies share no measure, or a table cannot be analysed.
    """
    shared = [name for name in measure_names(table_a) if name in measure_names(table_b)]
    if not shared:
        raise ValueError(f"studies {names[0]!r} and {names[1]!r} have no measure in common")
    parts: list[Floats] = []
    columns: dict[str, Floats | Ints] = {}
    for number, (label, table) in enumerate((("a", table_a), ("b", table_b))):
        data = sample(select(table).used, target=target)
        chosen = [data.measures.index(name) for name in shared]
        x = data.x[:, chosen]
        weights = bootstrap_weights(data.num_trainings, draws, seed + number)
        tau = weighted_tau(x, data.y, data.trainings, weights)
        trainings = data.trainings_with_value()[chosen]
        low, high = intervals.percentile(tau[1:], 0.95, trainings)
        columns |= {f"tau_{label}": tau[0], f"tau_{label}_low": low, f"tau_{label}_high": high}
        columns[f"n_{label}"] = (~np.isnan(x) & ~np.isnan(data.y)[:, None]).sum(axis=0)
        parts.append(tau)
    frame = pd.DataFrame(columns, index=pd.Index(shared, name="measure"))
    frame["same_sign"] = _same_sign(frame)
    return Comparison(*names, target, *_agreement(parts[0], parts[1], seed), frame)


def _same_sign(frame: pd.DataFrame) -> pd.Series[bool]:
    signs = []
    for label in ("a", "b"):
        low, high = frame[f"tau_{label}_low"], frame[f"tau_{label}_high"]
        signs.append(np.where(low > 0, 1, np.where(high < 0, -1, 0)))
    agree = pd.Series(signs[0] == signs[1], index=frame.index, dtype="boolean")
    return agree.mask((signs[0] == 0) | (signs[1] == 0))


def _agreement(a: Floats, b: Floats, seed: int) -> tuple[float, float, float]:
    """tau_b across measures for every draw, the measures resampled too; row 0 is the estimate."""
    known = ~np.isnan(a[0]) & ~np.isnan(b[0])
    a, b = a[:, known], b[:, known]
    count = a.shape[1]
    if count < 2:
        return np.nan, np.nan, np.nan
    weights = bootstrap_weights(count, len(a) - 1, seed + 2)
    clusters = np.arange(count)
    taus = np.array(
        [
            weighted_tau(a[d][:, None], b[d], clusters, weights[d : d + 1])[0, 0]
            for d in range(len(a))
        ]
    )
    low, high = intervals.percentile(taus[1:], 0.95, count)
    return float(taus[0]), float(low), float(high)
