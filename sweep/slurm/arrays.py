"""From what is to be run to Slurm arrays that the cluster accepts. Pure: no command is run here.

A task is one line of the study's manifest. Tasks that ask for the same resources share arrays;
one element of an array runs one task, or several: side by side (``pack``), and one after another
(``chain``), more of them where the cluster allows fewer jobs in the queue than that takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sweep.convert import to_plain
from sweep.slurm.accounting import SubmitLimit
from sweep.slurm.limits import Limits
from sweep.slurm.options import Resources, SlurmOptions
from sweep.slurm.queue import QueuedJob


@dataclass(frozen=True)
class Task:
    """One line of the manifest. ``cost``: in any unit, to begin with the longest."""

    line: int
    axes: Mapping[str, object]
    cost: float = 1.0
    measures_only: bool = False


@dataclass(frozen=True)
class Array:
    """One submission. ``elements[i]``: the manifest lines that array index i runs.

    ``parallelism``: elements at the same time. ``after``: the position of an array that must end
    first, so that the parallelism of all arrays together stays within its limit. ``canary``: goes
    ahead of the others, one training of each method.
    """

    resources: Resources
    elements: tuple[tuple[int, ...], ...]
    processes: int
    parallelism: int | None = None
    after: int | None = None
    canary: bool = False

    @property
    def lines(self) -> list[int]:
        return [line for element in self.elements for line in element]

    def describe(self) -> str:
        """One line for people."""
        asked, most = self.resources, max(len(e) for e in self.elements)
        parts = [f"{len(self.elements)} jobs for {len(self.lines)} tasks"]
        parts += [f"partition {asked.partition}"] * bool(asked.partition)
        parts += [f"{asked.gpus} GPU, {asked.cpus} CPU, {asked.time_min} min each"]
        if most > 1:
            parts.append(f"up to {most} tasks a job, {min(self.processes, most)} at a time")
        if self.parallelism:
            parts.append(f"{self.parallelism} jobs at a time")
        if self.canary:
            parts.append("one of each method, ahead of the others")
        return "; ".join(parts)


class NoRoom(ValueError):
    """The user has as many jobs in the queue as the cluster allows."""


def plan_arrays(
    tasks: Sequence[Task],
    options: SlurmOptions,
    limits: Limits,
    *,
    queued: Sequence[QueuedJob] = (),
    proven: frozenset[object] = frozenset(),
) -> list[Array]:
    """The arrays to submit, in this order.

    Args:
        queued: jobs that the user already has in the queue, of this study or not.
        proven: methods of which a training has succeeded, so that they need no canary.

    Raises:
        NoRoom: not even one job may be submitted now.
    """
    canaries = _canaries(tasks, proven) if options.canary_min else []
    early = {task.line for task in canaries}
    groups = _groups(canaries, options, canary=True)
    groups += _groups([t for t in tasks if t.line not in early], options, canary=False)
    wanted = [math.ceil(len(group.lines) / size) for group, size in groups]
    slots = _allowed([group.resources for group, _ in groups], wanted, limits, queued)
    arrays = []
    for (group, _), elements in zip(groups, slots, strict=True):
        lines = group.lines
        dealt = [tuple(lines[i::elements]) for i in range(elements)]
        pieces = math.ceil(elements / limits.max_array_size)
        arrays += [replace(group, elements=tuple(dealt[i::pieces])) for i in range(pieces)]
    return _share_parallelism(arrays, options.parallelism)


def _allowed(
    asked: Sequence[Resources], wanted: Sequence[int], limits: Limits, queued: Sequence[QueuedJob]
) -> list[int]:
    """Jobs of each kind: as many as wanted, or as all limits that concern the kind leave room for.

    Raises:
        NoRoom: a limit does not leave one job for each kind that it concerns.
    """
    slots = list(wanted)
    kinds: dict[SubmitLimit, list[int]] = {}
    for i, resources in enumerate(asked):
        for limit in limits.submit_limits(resources):
            kinds.setdefault(limit, []).append(i)
    for limit, concerned in kinds.items():
        used = limit.used(queued)
        shares = share([slots[i] for i in concerned], limit.jobs - used)
        if 0 in shares:
            raise NoRoom(
                f"the cluster allows {limit.jobs} jobs of yours{limit} in the queue and {used} "
                f"are there, which leaves no room for {len(concerned)} kinds of jobs; the same "
                "command submits what is left when some have ended"
            )
        for i, jobs in zip(concerned, shares, strict=True):
            slots[i] = jobs
    return slots


def share(wanted: Sequence[int], available: int) -> list[int]:
    """Divide ``available`` in proportion to ``wanted``, no more than wanted, at least 1 each.

    All zeros if there is not even 1 for each.
    """
    if sum(wanted) <= available:
        return list(wanted)
    if available < len(wanted):
        return [0] * len(wanted)
    spare, more = available - len(wanted), [w - 1 for w in wanted]
    exact = [spare * m / sum(more) for m in more]
    shares = [math.floor(e) for e in exact]
    by_remainder = sorted(range(len(wanted)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: spare - sum(shares)]:
        shares[i] += 1
    return [s + 1 for s in shares]


def _canaries(tasks: Sequence[Task], proven: frozenset[object]) -> list[Task]:
    """The cheapest training of each method, where there are others to wait for it."""
    first: dict[object, Task] = {}
    for task in tasks:
        method = task.axes.get("method")
        if task.measures_only or method in proven:
            continue
        if method not in first or task.cost < first[method].cost:
            first[method] = task
    return list(first.values()) if len(first) < len(tasks) else []


def _groups(
    tasks: Sequence[Task], options: SlurmOptions, *, canary: bool
) -> list[tuple[Array, int]]:
    """Tasks by resources, longest first, as one-element arrays with their wished element size."""
    groups: dict[tuple[str, bool], list[Task]] = {}
    resources: dict[str, Resources] = {}
    for task in tasks:
        asked = options.resources(task.axes)
        key = json.dumps(to_plain(asked), sort_keys=True)
        resources[key] = asked
        groups.setdefault((key, task.measures_only), []).append(task)
    found = []
    for (key, measures_only), members in groups.items():
        members.sort(key=lambda t: t.cost, reverse=True)
        lines = tuple(t.line for t in members)
        size = options.measure_pack if measures_only else options.pack * options.chain
        size = 1 if canary else size
        processes = 1 if canary else options.pack
        found.append((Array(resources[key], (lines,), processes, canary=canary), size))
    return found


def _share_parallelism(arrays: list[Array], limit: int | None) -> list[Array]:
    """Give each array its part of the limit; where there are too many arrays, some wait."""
    if limit is None:
        return arrays
    shares = share([len(a.elements) for a in arrays[:limit]], limit)
    return [
        replace(array, parallelism=shares[i % limit], after=i - limit if i >= limit else None)
        for i, array in enumerate(arrays)
    ]
