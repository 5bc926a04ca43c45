r"""Kendall's :math:`\tau_b`, under whole-number weights, for many measures and many resamples.

With weights :math:`w_i` (how often model i was drawn), and every sum over pairs i < j,

    tau_b = sum w_i w_j sgn(x_i - x_j) sgn(y_i - y_j)
            / sqrt(sum w_i w_j [x_i != x_j] * sum w_i w_j [y_i != y_j])

equals ``scipy.stats.kendalltau`` of the sample in which model i is repeated :math:`w_i` times:
copies of one model are ties in both. The weights of a bootstrap over trainings are equal within
a training, so the numerator is a quadratic form in T x T (trainings) instead of n x n, and the
numerators of all draws are one matrix product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sweep.analysis.table import Bools, Floats, Ints

Signs = npt.NDArray[np.int8]
Weights = npt.NDArray[np.float32]

_PAIRS_AT_ONCE = 1 << 19  # rows of the pair matrix held in memory by `tau_matrix`


def bootstrap_weights(clusters: int, draws: int, seed: int) -> Weights:
    """(1 + draws, clusters): how often each cluster is drawn; row 0 is the sample itself.

    Row 0 is all ones, so whatever is computed from these weights has the point estimate first.
    """
    generator = np.random.default_rng(seed)
    resampled = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
    return np.concatenate([np.ones((1, clusters)), resampled]).astype(np.float32)


def weighted_tau(x: Floats, y: Floats, clusters: Ints, weights: Weights) -> Floats:
    """tau_b of each column of ``x`` (n, M) with ``y`` (n,), under each row of ``weights``.

    Of ``x`` and ``y``, any numbers, only the order counts; NaN where unknown. ``clusters`` (n,)
    is non-decreasing and indexes the columns of ``weights`` (D, C). Returns (D, M), NaN where
    ``x`` or ``y`` does not vary.
    """
    taus = np.full((len(weights), x.shape[1]), np.nan)
    known = ~np.isnan(x) & ~np.isnan(y)[:, None]
    for pattern, measures in _by_pattern(known):
        rows = np.flatnonzero(pattern)
        if len(rows) < 2:
            continue
        drawn, starts = np.unique(clusters[rows], return_index=True)
        cluster_weights, row_weights = weights[:, drawn], weights[:, clusters[rows]]
        sign_y, untied_y = pair_signs(y[rows]), _untied(y[rows], row_weights)
        for m in measures:
            concordance = pair_signs(x[rows, m]) * sign_y
            form = _sum_clusters(_sum_clusters(concordance, starts).T, starts)  # it is symmetric
            numerator = _quadratic(cluster_weights, form)
            taus[:, m] = ratio(numerator, _untied(x[rows, m], row_weights) * untied_y)
    return taus


def _by_pattern(known: Bools) -> list[tuple[Bools, list[int]]]:
    """The distinct columns of ``known``, each with the numbers of the columns equal to it."""
    columns: dict[bytes, list[int]] = {}
    for m, column in enumerate(known.T):
        columns.setdefault(column.tobytes(), []).append(m)
    return [(known[:, measures[0]], measures) for measures in columns.values()]


def ratio(numerator: Floats, product: Floats) -> Floats:
    """``numerator / sqrt(product)``; NaN where ``product`` is 0: nothing varies there."""
    root = np.sqrt(product)
    return divide(numerator, root)


def divide(numerator: Floats, denominator: Floats | Ints) -> Floats:
    """``numerator / denominator``; NaN where the denominator is 0."""
    undefined = np.full(np.shape(denominator), np.nan)
    return np.asarray(np.divide(numerator, denominator, out=undefined, where=denominator > 0))


def pair_signs(values: Floats) -> Signs:
    """sgn(v_i - v_j) for all i, j: (n, n)."""
    return np.subtract(
        values[:, None] > values[None, :], values[:, None] < values[None, :], dtype=np.int8
    )


def tau_matrix(x: Floats) -> Floats:
    """tau_b between all columns of ``x`` (n, M), each pair of columns over the rows both know."""
    n, num_columns = x.shape
    shape = (num_columns, num_columns)
    numerator, untied = np.zeros(shape), np.zeros(shape)
    first, second = np.triu_indices(n, 1)
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        difference = x[first[part]] - x[second[part]]
        known: Bools = ~np.isnan(difference)
        signs = np.sign(np.where(known, difference, 0)).astype(np.float32)
        numerator += signs.T @ signs
        untied += np.abs(signs).T @ known.astype(np.float32)  # [a, b]: x_a differs, x_b is known
    return ratio(numerator, untied * untied.T)


def _sum_clusters(matrix: npt.NDArray[Any], starts: Ints) -> npt.NDArray[np.float32]:
    """Sum the rows of ``matrix`` (n, k) that belong to one cluster: (C, k).

    Clusters are runs of rows from each of ``starts``. They are short (best and last checkpoint),
    so adding all first rows, all second rows, ... beats ``np.add.reduceat`` several times.
    """
    sizes = np.diff(starts, append=len(matrix))
    total = matrix[starts].astype(np.float32)
    for offset in range(1, int(sizes.max())):
        longer = sizes > offset
        if longer.all():
            total += matrix[starts + offset]
        else:
            total[longer] += matrix[starts[longer] + offset]
    return total


def _quadratic(weights: Weights, form: npt.NDArray[np.float32]) -> Floats:
    """w' F w / 2 for each row w. Exact: every entry of w F is a whole number below 2 ** 24."""
    products = np.multiply(weights @ form, weights, dtype=np.float64)
    return np.asarray(products.sum(axis=1) / 2)


def _untied(values: Floats, row_weights: Weights) -> Floats:
    """Weight of the pairs with different values, (N ** 2 - sum over values of N_v ** 2) / 2."""
    total = row_weights.sum(axis=1, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    if len(starts) < len(values):
        row_weights = np.add.reduceat(row_weights[:, order], starts, axis=1)
    squares = np.einsum("dr,dr->d", row_weights, row_weights, dtype=np.float64)
    return np.asarray((total**2 - squares) / 2)
