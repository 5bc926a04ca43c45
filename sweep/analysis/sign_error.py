"""Robust sign error (Dziugaite et al. 2020): how often does a measure order two models wrongly?

An environment is an axis with two of its levels, over all other settings. Robust means: look at
the worst environment, not at the mean of all. Formulas: ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import ndtr

from sweep.analysis.grid import Cells, cells_of
from sweep.analysis.kendall import divide
from sweep.analysis.table import Bools, Floats, Ints, Sample, sample
from sweep.axes import level_name

Correctness = Callable[[str], Mapping[str, Bools]]
"""From a model's id to its per-example correctness: ``pgd_test`` and the like, one bool each."""

MIN_WEIGHT = (
    10.0  # effective weight (sum of the weights of its pairs) of an environment that counts
)
_PARTS: dict[str, tuple[tuple[str, int], ...]] = {  # target = sum of sign * accuracy
    "gap": (("pgd_train", 1), ("pgd_test", -1)),
    "clean_gap": (("clean_train", 1), ("clean_test", -1)),
    "aa_gap": (("aa_train", 1), ("aa_test", -1)),
    "pgd_test": (("pgd_test", 1),),
}
_BITS = np.array([bin(byte).count("1") for byte in range(256)], dtype=np.uint8)
_PAIRS_AT_ONCE = 2048


@dataclass(frozen=True)
class SignErrors:
    """``errors``: weighted sign error in [0, 1], measures x environments (named
    ``axis: level | level``), NaN where the effective weight is below 10; ``weights`` likewise.
    ``unweighted_because``: why every pair weighs 1; None if pairs are weighted by the paired
    error of their difference.
    """

    errors: pd.DataFrame
    weights: pd.DataFrame
    unweighted_because: str | None

    @property
    def summary(self) -> pd.DataFrame:
        """Per measure: environments that count, mean, median, 90th percentile, worst, where.

        ``direction`` is -1 for a measure that is wrong more often than right: its errors are
        counted the other way round (1 - error), as for the measure with its sign turned.
        """
        turned = self.errors.mean(axis=1) > 0.5
        errors = self.errors.where(~turned, 1 - self.errors)
        columns = {
            "environments": errors.notna().sum(axis=1),
            "direction": np.where(turned, -1, 1),
            "mean": errors.mean(axis=1),
            "median": errors.median(axis=1),
            "p90": errors.quantile(0.9, axis=1),
            "worst": errors.max(axis=1),
        }
        frame = pd.DataFrame(columns)
        known = errors[frame["environments"] > 0]
        frame["worst_environment"] = known.idxmax(axis=1).reindex(frame.index)
        return frame


def sign_errors(
    table: pd.DataFrame, *, target: str = "gap", correctness: Correctness | None = None
) -> SignErrors:
    """The sign error of every measure in every environment.

    A pair's weight is the probability that the sign of its difference in the target is right,
    from the paired per-example ``correctness``. Without it, or where it does not hold the same
    examples for every model, every pair weighs 1, and the result says why. Pairs with equal
    targets have no sign and are left out; equal measures count as half an error.
    """
    data = sample(table, target=target)
    packed, reason = None, "the per-example correctness was not given"
    if correctness is not None:
        try:
            packed = _Packed(data, target, correctness)
        except _Unpaired as unpaired:
            reason = str(unpaired)
    errors: dict[str, Floats] = {}
    weights: dict[str, Floats] = {}
    for axis in data.axes:
        cells = cells_of(data, axis, with_standard=axis == "method" and bool(data.standard.any()))
        for name, first, second in _environments(data, axis, cells):
            change = data.target_values[first] - data.target_values[second]
            weight = np.ones(len(first)) if packed is None else packed.confidence(first, second)
            weight = np.where(change == 0, 0, weight)
            change_x = data.x[first] - data.x[second]
            wrong = (1 - np.sign(change_x) * np.sign(change)[:, None]) / 2
            known = np.where(np.isnan(change_x), 0, weight[:, None])
            total = known.sum(axis=0)
            error = divide((known * np.nan_to_num(wrong)).sum(axis=0), total)
            errors[name] = np.where(total >= MIN_WEIGHT, error, np.nan)
            weights[name] = total
    index = pd.Index(data.measures, name="measure")
    return SignErrors(
        pd.DataFrame(errors, index=index),
        pd.DataFrame(weights, index=index),
        reason if packed is None else None,
    )


def _environments(data: Sample, axis: str, cells: Cells) -> Iterable[tuple[str, Ints, Ints]]:
    """Name and pairs of every pair of levels of ``axis``; null is a level named ``null``."""
    code = data.codes[axis]
    low = np.minimum(code[cells.first], code[cells.second])
    high = np.maximum(code[cells.first], code[cells.second])
    names = {k: level_name(level) for k, level in enumerate(data.levels[axis])} | {-1: "null"}
    for a, b in sorted(set(zip(low.tolist(), high.tolist(), strict=True))):
        if a != b:
            chosen = (low == a) & (high == b)
            yield f"{axis}: {names[a]} | {names[b]}", cells.first[chosen], cells.second[chosen]


class _Unpaired(Exception):
    """The models have no common examples to pair them on."""


class _Packed:
    """Per-example correctness of all models as bits, and the paired errors that follow."""

    def __init__(self, data: Sample, target: str, correctness: Correctness) -> None:
        if target not in _PARTS:
            raise _Unpaired(f"{target} is not made of per-example correctness")
        self._values = data.target_values
        self._parts = [key for key, _ in _PARTS[target]]
        self._sizes: dict[str, int] = {}
        rows: dict[str, list[npt.NDArray[np.uint8]]] = {key: [] for key in self._parts}
        for model in data.model_ids:
            correct = correctness(model)
            for key in self._parts:
                if key not in correct:
                    raise _Unpaired(f"model {model} has no per-example correctness {key!r}")
                size = self._sizes.setdefault(key, len(correct[key]))
                if len(correct[key]) != size:
                    raise _Unpaired(
                        f"model {model} has {len(correct[key])} examples in {key!r}, others {size}"
                    )
                rows[key].append(np.packbits(correct[key]))
        self._bits = {key: np.stack(bits) for key, bits in rows.items()}
        self._accuracy = {
            key: _BITS[bits].sum(axis=1) / self._sizes[key] for key, bits in self._bits.items()
        }

    def standard_errors(self, first: Ints, second: Ints) -> Floats:
        """Of the difference in the target, over examples: both models saw the same images.

        With d = c_i - c_j in {-1, 0, 1} per example, Var(mean d) = (mean d^2 - (mean d)^2) / N,
        and mean d^2 is the share of examples on which the two disagree.
        """
        variance = np.zeros(len(first))
        for key, bits in self._bits.items():
            size, accuracy = self._sizes[key], self._accuracy[key]
            mean = accuracy[first] - accuracy[second]
            for start in range(0, len(first), _PAIRS_AT_ONCE):
                part = slice(start, start + _PAIRS_AT_ONCE)
                disagree = _BITS[bits[first[part]] ^ bits[second[part]]].sum(axis=1) / size
                variance[part] += np.maximum(disagree - mean[part] ** 2, 0) / size
        return np.sqrt(variance)

    def confidence(self, first: Ints, second: Ints) -> Floats:
        """Probability in [0.5, 1] that the sign of the difference in the target is right."""
        change = np.abs(self._values[first] - self._values[second])
        error = self.standard_errors(first, second)
        certain = np.where(change > 0, 1.0, 0.5)
        z = np.divide(change, error, out=np.zeros(len(change)), where=error > 0)
        return np.where(error > 0, ndtr(z), certain)
