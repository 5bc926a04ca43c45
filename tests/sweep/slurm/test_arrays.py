"""How tasks become arrays: every task once, and no limit of the cluster exceeded."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.slurm.arrays import Array, NoRoom, Task, plan_arrays, share
from sweep.slurm.limits import Limits
from sweep.slurm.options import SlurmOptions
from sweep.slurm.queue import QueuedJob

NO_LIMITS = Limits(max_array_size=1001, max_jobs=None, partitions={})


def tasks(count: int, **axes: list[Any]) -> list[Task]:
    """``count`` tasks that go through the levels of the axes in turn."""
    return [
        Task(i, {a: levels[i % len(levels)] for a, levels in axes.items()}, cost=float(i))
        for i in range(count)
    ]


def options(**changes: Any) -> SlurmOptions:
    return SlurmOptions(**{"canary_min": 0, **changes})


def in_queue(count: int) -> list[QueuedJob]:
    job = QueuedJob("1", "PENDING", "me", "lab", "normal", "gpu", "Resources", "(null)")
    return [job] * count


@given(
    count=st.integers(1, 300),
    max_array_size=st.integers(1, 40),
    max_submit=st.none() | st.integers(1, 100),
    queued=st.integers(0, 50),
    pack=st.integers(1, 5),
    chain=st.integers(1, 5),
    parallelism=st.none() | st.integers(1, 20),
    canary_min=st.integers(0, 1),
)
@settings(max_examples=300, deadline=None)
def test_every_task_once_and_all_limits_kept(
    count: int,
    max_array_size: int,
    max_submit: int | None,
    queued: int,
    pack: int,
    chain: int,
    parallelism: int | None,
    canary_min: int,
) -> None:
    todo = tasks(count, method=["at", "trades", "mart"], architecture=["a", "b"])
    slurm = options(
        pack=pack,
        chain=chain,
        parallelism=parallelism,
        canary_min=canary_min,
        per={"architecture": {"b": {"time_min": 2000}}},
    )
    limits = Limits(max_array_size=max_array_size, max_jobs=max_submit, partitions={})
    try:
        planned = plan_arrays(todo, slurm, limits, queued=in_queue(queued))
    except NoRoom:
        assert max_submit is not None
        assert max_submit - queued < 4  # two kinds of resources, and as many of canaries
        return
    lines = [line for array in planned for line in array.lines]
    assert sorted(lines) == list(range(count))
    assert all(1 <= len(a.elements) <= max_array_size for a in planned)
    assert all(element for a in planned for element in a.elements)
    if max_submit is None:
        assert all(len(e) <= pack * chain for a in planned for e in a.elements)
    if max_submit is not None:
        assert sum(len(a.elements) for a in planned) <= max_submit - queued
    for array in planned:
        wanted = {2000 if todo[line].axes["architecture"] == "b" else 1440 for line in array.lines}
        assert wanted == {array.resources.time_min}
    if parallelism is not None:
        assert most_at_once(planned) <= parallelism


def most_at_once(planned: list[Array]) -> int:
    """Elements that can run at the same time, by playing the arrays through one at a time."""
    ended: set[int] = set()
    most = 0
    while len(ended) < len(planned):
        running = [
            i
            for i, a in enumerate(planned)
            if i not in ended and (a.after is None or a.after in ended)
        ]
        most = max(most, sum(planned[i].parallelism or 0 for i in running))
        assert running, "an array waits for one that never ends"
        ended.add(running[-1])  # the order in which they end does not matter: try the last first
    return most


def test_the_paper_grid_on_a_default_slurm() -> None:
    todo = tasks(1344, method=["at"])
    sizes = [len(a.elements) for a in plan_arrays(todo, options(), NO_LIMITS)]
    assert sizes == [672, 672]


def test_fewer_jobs_than_tasks_are_chained_evenly() -> None:
    limits = Limits(max_array_size=1001, max_jobs=30, partitions={})
    (array,) = plan_arrays(tasks(100), options(), limits, queued=in_queue(5))
    assert sorted({len(e) for e in array.elements}) == [4]
    assert len(array.elements) == 25
    assert array.processes == 1


def test_packing_runs_side_by_side_and_chaining_one_after_another() -> None:
    (packed,) = plan_arrays(tasks(12), options(pack=4), NO_LIMITS)
    assert ([len(e) for e in packed.elements], packed.processes) == ([4, 4, 4], 4)
    limits = Limits(max_array_size=1001, max_jobs=1, partitions={})
    (forced,) = plan_arrays(tasks(12), options(pack=4), limits)
    assert ([len(e) for e in forced.elements], forced.processes) == ([12], 4)
    (chained,) = plan_arrays(tasks(13), options(pack=2, chain=3), NO_LIMITS)
    assert ([len(e) for e in chained.elements], chained.processes) == ([5, 4, 4], 2)
    assert chained.elements[0] == (12, 9, 6, 3, 0), "long and short ones in each job"


def test_measuring_tasks_share_a_process_and_never_a_job_with_trainings() -> None:
    measuring = [Task(i, {}, measures_only=True) for i in range(250)]
    training = [Task(i, {}) for i in range(250, 260)]
    planned = plan_arrays(measuring + training, options(measure_pack=100), NO_LIMITS)
    assert [len(a.elements) for a in planned] == [3, 10]


def test_canaries_are_the_cheapest_of_each_unproven_method_and_go_first() -> None:
    todo = tasks(20, method=["at", "trades", "mart"])
    planned = plan_arrays(todo, options(canary_min=5), NO_LIMITS, proven=frozenset({"mart"}))
    assert [a.canary for a in planned] == [True, False]
    assert sorted(planned[0].lines) == [0, 1]


def test_a_study_of_canaries_alone_waits_for_none() -> None:
    planned = plan_arrays(tasks(2, method=["at", "trades"]), options(canary_min=5), NO_LIMITS)
    assert [a.canary for a in planned] == [False]


def test_the_longest_begin_first() -> None:
    (array,) = plan_arrays(tasks(5), options(), NO_LIMITS)
    assert array.lines == [4, 3, 2, 1, 0]


def test_no_room_says_how_it_goes_on() -> None:
    limits = Limits(max_array_size=1001, max_jobs=10, partitions={})
    with pytest.raises(NoRoom, match="allows 10 jobs of yours in the queue and 10 are there"):
        plan_arrays(tasks(3), options(), limits, queued=in_queue(10))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 200))
def test_share_is_fair(wanted: list[int], available: int) -> None:
    got = share(wanted, available)
    if available < len(wanted):
        assert got == [0] * len(wanted)
        return
    assert sum(got) == min(available, sum(wanted))
    assert all(1 <= g <= w for g, w in zip(got, wanted, strict=True))
    by_wish = sorted(zip(wanted, got, strict=True))
    assert all(b[1] >= a[1] - 1 for a, b in itertools.pairwise(by_wish))
