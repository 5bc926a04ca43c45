"""A balanced part of a grid: few settings in which levels, and pairs of levels, are equally often.

For seed replicates, for costly measures, and for a first look at a study that takes weeks.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from sweep.setting import digest

FREE_AXES = ("seed", "early_stopping")  # of a chosen setting, all seeds and both checkpoints


def balanced(settings: Sequence[Sequence[Hashable]], count: int) -> list[int]:
    """Indices of ``count`` of the settings, in their order; ``settings[i]`` are levels by axis.

    Chosen one by one, each the one whose levels and pairs of levels are rarest among those chosen
    so far. Repeatable: ties go by a hash of the levels.

    Raises:
        ValueError: ``count`` is not between 1 and the number of settings.
    """
    if not 1 <= count <= len(settings):
        raise ValueError(
            f"study.sample={count} must be between 1 and {len(settings)}, the study's settings"
        )
    cells = _cells(settings)
    taken = np.zeros(cells.max() + 1)
    order = np.argsort([digest([str(level) for level in levels]) for levels in settings])
    chosen: list[int] = []
    left = np.ones(len(settings), dtype=bool)
    for _ in range(count):
        crowding = taken[cells].sum(axis=1)
        crowding[~left] = np.inf
        best = int(order[np.argmin(crowding[order])])
        chosen.append(best)
        left[best] = False
        taken[cells[best]] += 1
    return sorted(chosen)


def _cells(settings: Sequence[Sequence[Hashable]]) -> NDArray[np.int_]:
    """For each setting the numbers of its levels and of its pairs of levels."""
    numbers: dict[Hashable, int] = {}
    rows = []
    for levels in settings:
        single = list(enumerate(levels))
        names: list[Hashable] = [*single, *itertools.combinations(single, 2)]
        rows.append([numbers.setdefault(name, len(numbers)) for name in names])
    return np.array(rows)
