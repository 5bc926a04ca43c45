"""A balanced part of a grid: more even than chance, repeatable, and the same whatever the order."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import pytest

from sweep.balance import balanced
from sweep.plan import plan

GRID = list(itertools.product("abc", (True, False), (32, 64, 128, 256)))


def unevenness(chosen: list[tuple[object, ...]]) -> int:
    """Sum over all axes and pairs of axes of squared counts: smaller is more even."""
    counts: Counter[object] = Counter()
    for levels in chosen:
        marked = list(enumerate(levels))
        counts.update(marked)
        counts.update(itertools.combinations(marked, 2))
    return sum(n * n for n in counts.values())


def test_it_is_more_even_than_the_best_of_many_random_parts() -> None:
    chosen = [GRID[i] for i in balanced(GRID, 12)]
    draw = random.Random(0)
    assert unevenness(chosen) <= min(unevenness(draw.sample(GRID, 12)) for _ in range(2000))


def test_the_choice_does_not_depend_on_the_order_of_the_settings() -> None:
    shuffled = random.Random(1).sample(GRID, len(GRID))
    assert {GRID[i] for i in balanced(GRID, 7)} == {shuffled[i] for i in balanced(shuffled, 7)}


@pytest.mark.parametrize("count", [0, 25])
def test_an_impossible_number_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"study.sample={count} must be between 1 and 24"):
        balanced(GRID, count)


def test_replicates_of_the_papers_grid_are_balanced_and_have_every_seed(tmp_path: Path) -> None:
    replicates = plan(
        [f"results_dir={tmp_path}", "study=paper", "dataset=digits", "study.sample=24", "seed=1,2"]
    )
    assert replicates.headline() == "96 models from 48 trainings"
    first = [job.spec for job in replicates.jobs if job.spec.seed == 1]
    assert len({(spec.architecture, spec.method) for spec in first}) == 12
    axes = ("architecture", "method", "optimizer", "batch_size", "augmentation", "extra_data")
    for axis in axes:  # 24 is a multiple of each axis's number of levels
        assert len(set(Counter(getattr(spec, axis) for spec in first).values())) == 1, axis
