"""Rank correlations of every measure with a target: tau, psi and pi, with intervals and counts.

Definitions and sources: ``docs/statistics.md``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from sweep.analysis import intervals
from sweep.analysis.grid import Cells, CellTaus, cell_taus, cells_of
from sweep.analysis.kendall import bootstrap_weights, weighted_tau
from sweep.analysis.table import Floats, Ints, Sample, sample
from sweep.axes import level_name


@dataclass(frozen=True)
class Coefficients:
    """Everything the resampling yields. Draw 0 is the sample itself: the point estimate.

    ``tau`` (1 + D, M); ``within[axis, level]`` (1 + D, M): tau over the models at that level;
    ``trainings`` and ``trainings_within`` (M,): how many trainings each of them rests on;
    ``cells[axis]``: the cells of the axis and tau in each, none where ``sample.no_cells``.
    """

    sample: Sample
    tau: Floats
    trainings: Ints
    within: dict[tuple[str, str], Floats] = field(default_factory=dict)
    trainings_within: dict[tuple[str, str], Ints] = field(default_factory=dict)
    cells: dict[str, tuple[Cells, CellTaus]] = field(default_factory=dict)

    def pi(self, axis: str) -> Floats:
        """(1 + D, M): mean over the levels of ``axis`` of tau at that level."""
        return _mean([draws for (name, _), draws in self.within.items() if name == axis])


def coefficients(data: Sample, *, draws: int = 1000, seed: int = 0) -> Coefficients:
    """tau, tau within every level of every axis, and tau in every cell; trainings resampled."""
    weights = bootstrap_weights(data.num_trainings, draws, seed)
    tau = weighted_tau(data.x, data.y, data.trainings, weights)
    result = Coefficients(data, tau, data.trainings_with_value())
    for axis in data.axes:
        for code, level in enumerate(data.levels[axis]):
            rows = data.codes[axis] == code
            key = axis, level_name(level)
            result.within[key] = weighted_tau(
                data.x[rows], data.y[rows], data.trainings[rows], weights
            )
            result.trainings_within[key] = data.trainings_with_value(rows)
        if data.no_cells:
            continue
        cells = cells_of(data, axis)
        result.cells[axis] = (cells, cell_taus(cells, data.x, data.y))
        if axis == "method" and data.standard.any():
            cells = cells_of(data, axis, with_standard=True)
            result.cells["method_with_standard"] = (cells, cell_taus(cells, data.x, data.y))
    return result


def correlate(
    table: pd.DataFrame,
    *,
    target: str = "gap",
    axes: Sequence[str] | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Rank correlations of every measure of ``table`` with ``target``.

    Only rows where the measure or the target is NaN are dropped; call :func:`usable` first to
    drop failed models. ``axes`` (default: all that vary) are those that psi and pi are computed
    for; a cell always holds every other axis of the table. Where fewer than two vary there is
    nothing to hold: ``psi`` is NaN, and there are no ``psi_<axis>`` nor their counts.

    Returns a frame indexed by measure (without prefix), with columns

    * ``n``: models used; ``trainings``: trainings they come from (settings, where models have
      several seeds): what is resampled
    * ``tau``, ``p``, ``p_holm``: Kendall's tau_b, its p-value, corrected over the measures
    * ``psi``: mean of ``psi_<axis>``; ``cells_<axis>``, ``pairs_<axis>``: cells it is the mean
      of and the pairs in them; ``tied_<axis>``: cells left out, as measure or target is constant
    * ``psi_method_with_standard`` where there are models without inner maximisation
    * ``pi``: mean of ``pi_<axis>``, itself the mean of the ``pi_<axis>=<level>``
    * ``<coefficient>_low``, ``<coefficient>_high``: interval at ``level``, from ``draws`` resamples

    Raises:
        ValueError: see :func:`sweep.analysis.table.sample`.
    """
    data = sample(table, target=target, axes=axes)
    return summarise(coefficients(data, draws=draws, seed=seed), seed=seed, level=level)


def tau_alone(
    table: pd.DataFrame, *, target: str = "gap", draws: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Only ``n trainings tau tau_low tau_high p p_holm`` of :func:`correlate`: needs no axis."""
    data = sample(table, target=target, axes=[])
    return _tau_columns(coefficients(data, draws=draws, seed=seed), 0.95)


def _tau_columns(result: Coefficients, level: float) -> pd.DataFrame:
    data = result.sample
    known = ~np.isnan(data.x) & ~np.isnan(data.y)[:, None]
    tau, draws, trainings = result.tau[0], result.tau[1:], result.trainings
    low, high = intervals.percentile(draws, level, trainings)
    p = intervals.p_values(tau, draws, intervals.kendall_error(trainings))
    columns = {"n": known.sum(axis=0), "trainings": trainings, "tau": tau, "tau_low": low}
    columns |= {"tau_high": high, "p": p, "p_holm": intervals.holm(p)}
    return pd.DataFrame(columns, index=pd.Index(data.measures, name="measure"))


def summarise(result: Coefficients, *, seed: int = 0, level: float = 0.95) -> pd.DataFrame:
    """The frame of :func:`correlate` from resampled coefficients."""
    data, draws = result.sample, len(result.tau) - 1
    columns: dict[str, Floats | Ints] = {}

    def add(name: str, estimate: Floats, low: Floats, high: Floats) -> None:
        columns.update({name: estimate, f"{name}_low": low, f"{name}_high": high})

    def add_draws(name: str, resampled: Floats, trainings: Ints) -> None:
        reach = intervals.percentile(resampled[1:], level, trainings)
        add(name, resampled[0], *reach)

    parts = [result.cells[axis] for axis in data.axes if axis in result.cells]
    if parts:
        psi = _mean([taus.mean for _, taus in parts])
        add("psi", psi, *intervals.mean_over_axes(parts, data.trainings, level))
    else:
        add("psi", *np.full((3, len(data.measures)), np.nan))
    for axis, (cells, taus) in result.cells.items():
        low, high = intervals.mean_over_cells(
            cells, taus, data.trainings, draws=draws, seed=seed, level=level
        )
        add(f"psi_{axis}", taus.mean, low, high)
        columns[f"cells_{axis}"] = taus.defined
        columns[f"tied_{axis}"] = taus.tied
        columns[f"pairs_{axis}"] = taus.pairs_used
    if result.within:
        add_draws("pi", _mean([result.pi(axis) for axis in data.axes]), result.trainings)
        for axis in data.axes:
            add_draws(f"pi_{axis}", result.pi(axis), result.trainings)
    elif not data.axes:
        add("pi", *np.full((3, len(data.measures)), np.nan))
    for key, resampled in result.within.items():
        add_draws(f"pi_{'='.join(key)}", resampled, result.trainings_within[key])
    tau = _tau_columns(result, level)
    return pd.concat([tau, pd.DataFrame(columns, index=tau.index)], axis=1)


def _mean(parts: Sequence[Floats]) -> Floats:
    """Mean over ``parts``, undefined ones left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        return np.asarray(np.nanmean(np.stack(parts), axis=0))
