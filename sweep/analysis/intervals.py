"""Intervals and p-values: percentile bootstrap, and a sandwich variance for dependent cells."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.sparse import vstack
from scipy.special import ndtr, ndtri, stdtrit

from sweep.analysis.grid import Cells, CellTaus
from sweep.analysis.kendall import bootstrap_weights, divide
from sweep.analysis.table import Floats, Ints


def percentile(draws: Floats, level: float, size: Ints | int) -> tuple[Floats, Floats]:
    """Expanded percentile interval of ``draws`` (D, M), undefined draws left out.

    A bootstrap of ``size`` units, one number or one per column, is too narrow by
    sqrt((size - 1) / size), and by the normal in place of Student's distribution; the expanded
    percentiles (Hesterberg 2015) widen the tails by as much: Phi(-sqrt(n / (n - 1)) t_{n-1})
    instead of (1 - level) / 2.
    """
    sizes = np.broadcast_to(size, draws.shape[1:])
    low, high = np.full(sizes.shape, np.nan), np.full(sizes.shape, np.nan)
    with warnings.catch_warnings():  # a measure that no draw defines stays NaN, as it should
        warnings.filterwarnings("ignore", message="All-NaN slice", category=RuntimeWarning)
        for one in np.unique(sizes):
            alike = sizes == one
            tail = float(ndtr(-_widening(one, (1 + level) / 2)))
            low[alike], high[alike] = np.nanquantile(draws[:, alike], [tail, 1 - tail], axis=0)
    return low, high


def simultaneous_reach(error: Floats, trainings: Ints | int, level: float) -> Floats:
    """Half the width of intervals that together hold with probability ``level`` or more.

    ``error`` are standard errors of a bootstrap over ``trainings`` each. By Bonferroni each of k
    has 1 - (1 - level) / (2 k) on either side; Student's distribution as in :func:`percentile`.
    """
    count = max(int((~np.isnan(error)).sum()), 1)
    return np.asarray(_widening(trainings, 1 - (1 - level) / (2 * count)) * error)


def _widening(size: Ints | int, probability: float) -> Floats:
    """Quantile of an estimate in standard errors of a bootstrap over ``size`` units."""
    n = np.maximum(size, 2)
    return np.asarray(np.sqrt(n / (n - 1)) * stdtrit(n - 1, probability))


def mean_over_cells(
    cells: Cells, taus: CellTaus, trainings: Ints, *, draws: int, seed: int, level: float
) -> tuple[Floats, Floats]:
    """Interval (M,), (M,) of psi: a bootstrap over clusters of cells that share a training.

    Where all clusters agree on +1 or -1 no resample can differ, and the percentile interval
    would be a point. There the other end is the exact binomial bound for G agreeing clusters,
    ``2 * ((1 - level) / 2) ** (1 / G) - 1`` (Clopper & Pearson 1934).
    """
    num_measures = taus.tau.shape[1]
    if cells.count == 0:
        return np.full(num_measures, np.nan), np.full(num_measures, np.nan)
    cluster = cells.clusters(trainings)
    num_clusters = int(cluster.max()) + 1
    sums = np.zeros((num_clusters, num_measures))
    counts = np.zeros((num_clusters, num_measures))
    np.add.at(sums, cluster, np.nan_to_num(taus.tau))
    np.add.at(counts, cluster, ~np.isnan(taus.tau))
    weights = bootstrap_weights(num_clusters, draws, seed)[1:].astype(np.float64)
    total = weights @ counts
    resampled = divide(weights @ sums, total)
    used = np.maximum((counts > 0).sum(axis=0), 1)
    low, high = percentile(resampled, level, used)
    bound = 2 * ((1 - level) / 2) ** (1 / used) - 1
    mean = taus.mean
    low = np.where(mean >= 1, np.minimum(low, bound), low)
    high = np.where(mean <= -1, np.maximum(high, -bound), high)
    return low, high


def mean_over_axes(
    parts: Sequence[tuple[Cells, CellTaus]], trainings: Ints, level: float
) -> tuple[Floats, Floats]:
    """Interval of Psi, the mean of psi over axes.

    The cells of different axes share models, so they cannot be resampled as if independent.
    With the influence u_c of cell c (its deviation from psi_k over the number of cells and of
    axes), the variance is the sum of u_c u_d over all c, d that share a training: the variance
    of Aronow, Samii & Assenova (2015) for sums of dyads. It can be too small by chance;
    the sum over c = d is taken as its lower limit. The interval is normal, cut at -1 and 1.
    """
    num_measures = parts[0][1].tau.shape[1]
    defined = np.sum([taus.defined > 0 for _, taus in parts], axis=0)
    if not any(cells.count for cells, _ in parts):
        return np.full(num_measures, np.nan), np.full(num_measures, np.nan)
    influences, incidences, psi = [], [], np.zeros(num_measures)
    for cells, taus in parts:
        if cells.count == 0:
            continue
        mean = taus.mean
        scale = np.maximum(taus.defined, 1) * np.maximum(defined, 1)
        influences.append(np.nan_to_num((taus.tau - mean) / scale))
        incidences.append(cells.training_incidence(trainings))
        psi += np.nan_to_num(mean) / np.maximum(defined, 1)
    influence = np.concatenate(influences)
    incidence = vstack(incidences).tocsr()
    shared = incidence @ incidence.T
    shared.data[:] = 1
    variance = np.sum(influence * (shared @ influence), axis=0)
    error = np.sqrt(np.maximum(variance, np.square(influence).sum(axis=0)))
    reach = ndtri((1 + level) / 2) * error
    psi = np.where(defined > 0, psi, np.nan)
    return np.maximum(psi - reach, -1), np.minimum(psi + reach, 1)


def kendall_error(trainings: Ints) -> Floats:
    """Standard error of tau under independence for as many observations as there are trainings.

    Kendall's (1938), ``sqrt(2 (2 T + 5) / (9 T (T - 1)))``: what remains when best and last
    checkpoint carry the same information.
    """
    t = np.maximum(trainings, 2)
    return np.asarray(np.sqrt(2 * (2 * t + 5) / (9 * t * (t - 1))))


def p_values(estimate: Floats, draws: Floats, least: Floats) -> Floats:
    """Two-sided p-value of an estimate of 0: normal, with the larger of two standard errors.

    One is the bootstrap's; the other, ``least``, is :func:`kendall_error`, or made of it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Degrees of freedom", category=RuntimeWarning)
        error = np.nanstd(draws, axis=0, ddof=1)
    z = divide(np.abs(estimate), np.fmax(error, least))
    return np.asarray(2 * ndtr(-z))


def holm(p: Floats) -> Floats:
    """Holm's (1979) adjusted p-values; valid under any dependence. NaN stays NaN, uncounted."""
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1) if len(order) else 1
    return adjusted
