"""Does a measure say more than robust train accuracy, which is half of the gap already?

Partial tau and cross-validated R^2 given the control, and groups of near-identical measures.
Definitions and sources: ``docs/statistics.md``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from sweep.analysis import intervals
from sweep.analysis.kendall import bootstrap_weights, divide, tau_matrix, weighted_tau
from sweep.analysis.table import Floats, Sample, sample

IDENTICAL = 0.99  # |tau| above which two measures are one
_FOLDS = 10
_ADDS = 0.01  # gain in R^2 over the control below which a measure adds nothing


def control_of(target: str) -> str:
    """The accuracy on the training set that is half of ``target``."""
    return {"clean_gap": "clean_train"}.get(target, "pgd_train")


@dataclass(frozen=True)
class Controls:
    """``frame``: one row per measure and one for the control itself (``control``), see
    :func:`controls`; ``pairs``: R^2 of two predictors, best first (``first second r2 gain``)."""

    control: str
    frame: pd.DataFrame
    pairs: pd.DataFrame


def controls(
    table: pd.DataFrame, *, target: str = "gap", draws: int = 1000, seed: int = 0
) -> Controls:
    """Partial tau and cross-validated R^2 of every measure given the control.

    Columns of ``frame``, indexed by measure:

    * ``tau``, ``tau_control`` (``_low``, ``_high``): tau_b with the target, with the control
    * ``partial`` (``_low``, ``_high``): partial tau with the target given the control
    * ``r2``: cross-validated R^2 of the measure alone; ``r2_with_control``: together with the
      control; ``gain``: that minus R^2 of the control alone on the same models
    * ``explained``: the interval of ``partial`` holds 0, or ``gain`` is below 0.01

    The control's own row has its R^2, and no partial tau.
    """
    control = control_of(target)
    data = sample(table, target=target, predictors=[control])
    weights = bootstrap_weights(data.num_trainings, draws, seed)
    last = len(data.measures) - 1
    with_target = weighted_tau(data.x, data.y, data.trainings, weights)
    with_control = weighted_tau(data.x, data.x[:, last], data.trainings, weights)
    partial = partial_tau(with_target, with_control, with_target[:, [last]])
    r2, r2_pairs, alone = cross_validated_r2(data, seed=seed)
    columns: dict[str, Floats] = {}
    for name, resampled in (
        ("tau", with_target),
        ("tau_control", with_control),
        ("partial", partial),
    ):
        low, high = intervals.percentile(resampled[1:], 0.95, data.trainings_with_value())
        columns |= {name: resampled[0], f"{name}_low": low, f"{name}_high": high}
    columns |= {"r2": r2, "r2_with_control": r2_pairs[:, last]}
    columns["gain"] = r2_pairs[:, last] - alone[:, last]
    for name in ("partial", "partial_low", "partial_high", "r2_with_control", "gain"):
        columns[name][last] = np.nan
    frame = pd.DataFrame(columns, index=pd.Index(data.measures, name="measure"))
    holds_zero = (frame["partial_low"] <= 0) & (frame["partial_high"] >= 0)
    frame["explained"] = holds_zero | (frame["gain"] < _ADDS) | frame["partial"].isna()
    return Controls(control, frame, _best_pairs(data, r2, r2_pairs))


def partial_tau(xy: Floats, xz: Floats, yz: Floats) -> Floats:
    """Kendall's (1942) partial tau of x and y given z; NaN where z orders x or y entirely."""
    remaining = (1 - xz**2) * (1 - yz**2)
    remaining = np.where(remaining > 1e-12, remaining, 0)
    return divide(xy - xz * yz, np.sqrt(remaining))


def _best_pairs(data: Sample, r2: Floats, r2_pairs: Floats) -> pd.DataFrame:
    first, second = np.triu_indices(len(data.measures), 1)
    names = np.array(data.measures, dtype=object)
    frame = pd.DataFrame(
        {
            "first": names[first],
            "second": names[second],
            "r2": r2_pairs[first, second],
            "gain": r2_pairs[first, second] - np.fmax(r2[first], r2[second]),
        }
    )
    return frame.dropna().sort_values("r2", ascending=False, ignore_index=True)


def cross_validated_r2(data: Sample, *, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """R^2 of least squares on held-out trainings: of single predictors (M,), of pairs (M, M).

    Predictors enter as ranks scaled to [0, 1] (measures range over orders of magnitude), the
    target as it is. Ten folds; both checkpoints of a training are in the same fold. The residual
    is compared with that of the training folds' mean. Each pair uses the models that have both
    predictors; the third result (M, M) is R^2 of the second predictor alone on those models.

    All fits come from sums of products over folds, so 60 measures make 1,770 pairs in one go.
    """
    generator = np.random.default_rng(seed)
    folds = min(_FOLDS, data.num_trainings)
    fold = generator.permutation(data.num_trainings)[data.trainings] % folds
    scale = np.fmax(np.nanmax(data.x, axis=0, initial=0), 1)
    x, y = data.x / scale, data.target_values
    total = _Moments.of(x, y)
    shape = (x.shape[1], x.shape[1])
    error_pair, error_second, error_mean = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for number in range(folds):
        held = _Moments.of(x[fold == number], y[fold == number])
        fit = total.minus(held)
        errors = fit.held_out_errors(held)
        for sums, error in zip((error_pair, error_second, error_mean), errors, strict=True):
            sums += error
    pairs = 1 - divide(error_pair, error_mean)
    second = 1 - divide(error_second, error_mean)
    single = np.diag(second).copy()
    np.fill_diagonal(pairs, np.nan)
    return single, pairs, second


@dataclass(frozen=True)
class _Moments:
    """Sums over the models that have both predictors a and b; every field is (M, M).

    ``x[a, b]``, ``xx[a, b]``, ``xy[a, b]`` sum x_a, x_a^2, x_a y; ``cross`` sums x_a x_b.
    """

    n: Floats
    x: Floats
    xx: Floats
    cross: Floats
    xy: Floats
    y: Floats
    yy: Floats

    @classmethod
    def of(cls, x: Floats, y: Floats) -> _Moments:
        known = (~np.isnan(x)).astype(float)
        x = np.nan_to_num(x)
        y = y[:, None]
        return cls(
            n=known.T @ known,
            x=x.T @ known,
            xx=(x * x).T @ known,
            cross=x.T @ x,
            xy=(x * y).T @ known,
            y=(known * y).T @ known,
            yy=(known * y * y).T @ known,
        )

    def minus(self, other: _Moments) -> _Moments:
        mine, theirs = vars(self), vars(other)
        return _Moments(**{name: mine[name] - theirs[name] for name in mine})

    def around(self, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Sums of squares and products of x_a - ``x``[a, b] and y - ``y``: xx, cross, xy, yy."""
        xx = self.xx - 2 * x * self.x + self.n * x * x
        cross = self.cross - x * self.x.T - x.T * self.x + self.n * x * x.T
        xy = self.xy - x * self.y - y * self.x + self.n * x * y
        yy = self.yy - 2 * y * self.y + self.n * y * y
        return xx, cross, xy, yy

    def held_out_errors(self, held: _Moments) -> tuple[Floats, Floats, Floats]:
        """Squared errors on ``held`` of fits to ``self``: of a and b, of b alone, of the mean."""
        n = np.maximum(self.n, 1)
        mean_x, mean_y = self.x / n, self.y / n
        xx, cross, xy, _ = self.around(mean_x, mean_y)
        ridge = 1e-9 * self.n  # keeps a pair of identical predictors solvable
        a, b = xx + ridge, xx.T + ridge
        determinant = a * b - cross * cross
        slope_a = divide(xy * b - xy.T * cross, determinant)
        slope_b = divide(xy.T * a - xy * cross, determinant)
        alone = divide(xy.T, b)
        xx, cross, xy, yy = held.around(mean_x, mean_y)
        pair = yy - 2 * (slope_a * xy + slope_b * xy.T)
        pair += slope_a**2 * xx + 2 * slope_a * slope_b * cross + slope_b**2 * xx.T
        return pair, yy - 2 * alone * xy.T + alone**2 * xx.T, yy


def near_identical(table: pd.DataFrame, *, target: str = "gap") -> list[list[str]]:
    """Groups of measures that rank the models alike: |tau| > 0.99 within every architecture."""
    data = sample(table, target=target)
    architecture = data.codes.get("architecture", np.zeros(len(data.y), dtype=np.int64))
    alike = np.zeros((len(data.measures), len(data.measures)), dtype=bool)
    differ = np.zeros_like(alike)
    for code in np.unique(architecture):
        tau = np.abs(tau_matrix(data.x[architecture == code]))
        alike |= tau > IDENTICAL
        differ |= tau <= IDENTICAL
    _, label = connected_components(csr_array(alike & ~differ), directed=False)
    groups = [np.flatnonzero(label == k) for k in np.unique(label)]
    return [[data.measures[m] for m in group] for group in groups if len(group) > 1]
