"""A balanced part of a grid: few settings in which levels, and pairs of levels, are equally often.

For seed replicates, for costly measures, and for a first look at a study that takes weeks.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from sweep.digest import digest

FREE_AXES = ("seed", "early_stopping")  # of a chosen setting, all seeds and both checkpoints


def balanced(settings: Sequence[Sequence[Hashable]], count: int) -> list[int]:
    """Indices of ``count`` of the settings, in their order; ``settings[i]`` are levels by axis.

    Chosen one by one, each the one whose levels and pairs of levels are rarest among those chosen
    so far; then exchanged one by one as long as that makes the choice more even. Repeatable, and
    independent of the order of the settings: ties go by a hash of the levels.

    Raises:
        ValueError: ``count`` is not between 1 and the number of settings.
    """
    if not 1 <= count <= len(settings):
        raise ValueError(
            f"study.sample={count} must be between 1 and {len(settings)}, the study's settings"
        )
    if count == len(settings):  # also where there is no axis at all
        return list(range(count))
    cells = _cells(settings)
    order = np.argsort([digest([str(level) for level in levels]) for levels in settings])
    taken = np.zeros(cells.max() + 1)  # how many chosen settings have each level, each pair
    chosen = np.zeros(len(settings), dtype=bool)

    def take_rarest() -> int:
        crowding = np.where(chosen, np.inf, taken[cells].sum(axis=1))
        rarest = int(order[np.argmin(crowding[order])])
        chosen[rarest] = True
        taken[cells[rarest]] += 1
        return rarest

    for _ in range(count):
        take_rarest()
    improved = count < len(settings)
    while improved:
        improved = False
        for index in [i for i in order if chosen[i]]:
            taken[cells[index]] -= 1
            before = taken[cells[index]].sum()
            rarest = take_rarest()  # while ``index`` still counts as chosen
            better = taken[cells[rarest]].sum() - len(cells[rarest]) < before
            gone = index if better else rarest
            if not better:
                taken[cells[rarest]] -= 1
                taken[cells[index]] += 1
            chosen[gone] = False
            improved |= bool(better)
    return [int(i) for i in np.flatnonzero(chosen)]


def _cells(settings: Sequence[Sequence[Hashable]]) -> NDArray[np.int_]:
    """For each setting the numbers of its levels and of its pairs of levels."""
    numbers: dict[Hashable, int] = {}
    rows = []
    for levels in settings:
        single = list(enumerate(levels))
        names: list[Hashable] = [*single, *itertools.combinations(single, 2)]
        rows.append([numbers.setdefault(name, len(numbers)) for name in names])
    return np.array(rows)
