"""Cells of the grid: groups of models that differ in one axis only (Jiang et al. 2020).

The rules for ``steps``, which is null for methods without inner maximisation ("standard"):
null is a level like any other when cells for other axes are formed; in the cells of ``steps``
standard takes no part; the cells of ``method`` hold the robust methods at equal steps, and
``method_with_standard`` adds each standard model to every such cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from sweep.analysis.kendall import divide, ratio
from sweep.analysis.table import Floats, Ints, Sample

_VALUES_AT_ONCE = 1 << 25


@dataclass(frozen=True)
class Cells:
    """Cells of one axis with at least two models, and the pairs of models inside them.

    ``first`` and ``second`` (P,) index rows of the sample, ``cell`` (P,) numbers the pair's cell.
    """

    axis: str
    first: Ints
    second: Ints
    cell: Ints
    count: int

    def training_incidence(self, trainings: Ints) -> csr_array:
        """(cells, trainings) 0/1 matrix: which trainings have a model in the cell."""
        cells = np.concatenate([self.cell, self.cell])
        columns = trainings[np.concatenate([self.first, self.second])]
        shape = (self.count, int(trainings.max()) + 1)
        incidence = csr_array((np.ones(len(cells)), (cells, columns)), shape=shape)
        incidence.sum_duplicates()
        incidence.data[:] = 1
        return incidence

    def clusters(self, trainings: Ints) -> Ints:
        """(cells,) numbers of clusters: cells that share a training, directly or by others."""
        incidence = self.training_incidence(trainings)
        return np.asarray(connected_components(incidence @ incidence.T, directed=False)[1])


def cells_of(sample: Sample, axis: str, *, with_standard: bool = False) -> Cells:
    """The cells in which only ``axis`` varies. ``with_standard`` is for ``axis="method"``."""
    rows = np.arange(len(sample.y))
    if axis in ("steps", "method"):
        rows = rows[~sample.standard]
    keys = np.column_stack(
        [sample.codes[other] for other in sample.codes if other != axis]
        or [np.zeros(len(sample.y), dtype=np.int64)]
    )
    if with_standard:
        assert axis == "method"
        return _with_standard(sample, rows, keys)
    return _group(axis, rows, keys[rows])


def _with_standard(sample: Sample, robust: Ints, keys: Ints) -> Cells:
    """Standard models join the robust cells of every ``steps`` at otherwise equal settings."""
    others = [other for other in sample.codes if other != "method"]
    standard = np.flatnonzero(sample.standard)
    rows, row_keys = [robust], [keys[robust]]
    if "steps" in others:
        column = others.index("steps")
        for level in range(len(sample.levels["steps"])):
            copies = keys[standard].copy()
            copies[:, column] = level
            rows.append(standard)
            row_keys.append(copies)
    else:
        rows.append(standard)
        row_keys.append(keys[standard])
    return _group("method_with_standard", np.concatenate(rows), np.concatenate(row_keys))


def _group(axis: str, rows: Ints, keys: Ints) -> Cells:
    """Rows with equal keys form a cell; pairs are listed cell by cell."""
    if len(rows) == 0:
        empty = np.zeros(0, dtype=np.int64)
        return Cells(axis, empty, empty, empty, 0)
    _, cell = np.unique(keys, axis=0, return_inverse=True)
    cell = cell.ravel()
    order = np.argsort(cell, kind="stable")
    rows, sizes = rows[order], np.bincount(cell)
    starts = np.cumsum(sizes) - sizes
    firsts, seconds, numbers, count = [], [], [], 0
    for size in np.unique(sizes[sizes >= 2]):
        members = rows[starts[sizes == size][:, None] + np.arange(size)]
        left, right = np.triu_indices(size, 1)
        firsts.append(members[:, left].ravel())
        seconds.append(members[:, right].ravel())
        numbers.append(np.repeat(np.arange(count, count + len(members)), len(left)))
        count += len(members)
    none = [np.zeros(0, dtype=np.int64)]
    return Cells(
        axis,
        np.concatenate(firsts or none),
        np.concatenate(seconds or none),
        np.concatenate(numbers or none),
        count,
    )


@dataclass(frozen=True)
class CellTaus:
    """tau_b inside each cell: ``tau`` (C, M), NaN where undefined; ``pairs`` (C, M) known pairs.

    A cell exists for a measure if it has a known pair there; it is defined if both measure and
    target vary in it.
    """

    tau: Floats
    pairs: Floats

    @property
    def defined(self) -> Ints:
        return np.asarray((~np.isnan(self.tau)).sum(axis=0))

    @property
    def tied(self) -> Ints:
        return np.asarray(((self.pairs > 0) & np.isnan(self.tau)).sum(axis=0))

    @property
    def pairs_used(self) -> Ints:
        return np.asarray(np.where(np.isnan(self.tau), 0, self.pairs).sum(axis=0), dtype=np.int64)

    @property
    def mean(self) -> Floats:
        """psi: the plain mean of the defined cells, (M,)."""
        return divide(np.nansum(self.tau, axis=0), self.defined)


def cell_taus(cells: Cells, x: Floats, y: Floats) -> CellTaus:
    """tau_b of each column of ``x`` (n, M) with ``y`` inside each cell."""
    num_measures = x.shape[1]
    tau = np.full((cells.count, num_measures), np.nan)
    pairs = np.zeros((cells.count, num_measures))
    if cells.count == 0:
        return CellTaus(tau, pairs)
    sum_pairs = csr_array(
        (np.ones(len(cells.cell)), (cells.cell, np.arange(len(cells.cell)))),
        shape=(cells.count, len(cells.cell)),
    )
    change_y = y[cells.first] - y[cells.second]
    step = max(1, _VALUES_AT_ONCE // len(cells.cell))
    for start in range(0, num_measures, step):
        part = slice(start, start + step)
        change = x[cells.first, part] - x[cells.second, part]
        known = ~np.isnan(change) & ~np.isnan(change_y)[:, None]
        sign_x = np.where(known, np.sign(change), 0)
        sign_y = np.where(known, np.sign(change_y)[:, None], 0)
        untied = (sum_pairs @ np.abs(sign_x)) * (sum_pairs @ np.abs(sign_y))
        tau[:, part] = ratio(sum_pairs @ (sign_x * sign_y), untied)
        pairs[:, part] = sum_pairs @ known.astype(float)
    return CellTaus(tau, pairs)
