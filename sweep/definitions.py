"""Which value is meant: a row has one for each definition that somebody asked for.

``metrics`` and ``measures`` of a row hold what was computed last. A value that stood there by
another definition is kept in ``other_definitions`` (part -> name -> definition -> value), so that
studies that share a model and ask for different parameters stay complete, all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import measures
from defenses.spec import Threat
from sweep import steps
from sweep.setting import Evaluation, Job, Measuring
from sweep.store import Row, row_digest

PARTS = ("metrics", "measures")
Wanted = Mapping[str, Mapping[str, str]]  # part -> name -> the definition it must have


def wanted_by(
    evaluation: Evaluation, measuring: Measuring, threat: Threat, train_size: int
) -> dict[str, dict[str, str]]:
    """The definition of each value that is asked for of a model."""
    return {
        "metrics": steps.metric_definitions(evaluation, threat),
        "measures": steps.measure_definitions(measuring, threat, train_size),
    }


def reader() -> Callable[[Job], Wanted]:
    """A function that tells what a job wants of what exists; jobs that want the same are looked up.

    Make a new one for each command: files of the user's own measures are read only once.
    """

    @functools.cache
    def wanted(evaluation: Evaluation, measuring: Measuring, threat: Threat, size: int) -> Wanted:
        return wanted_by(evaluation, known(measuring), threat, size)

    known = functools.cache(existing)
    return lambda job: wanted(job.evaluation, job.measuring, job.spec.threat, job.train_size)


def existing(measuring: Measuring) -> Measuring:
    """Without what is gone: of what an old line asked for, some may not exist any more.

    A measure, or a parameter that was given to it. Their columns are then like those that the
    study never asked for.
    """

    def exists(name: str) -> bool:
        try:
            for column, measure in measures.resolve([name]).items():
                given = measuring.parameters.get(column, {})
                measures.merged_parameters(column, measure, given)
        except ValueError:
            return False
        return True

    return replace(measuring, names=tuple(filter(exists, measuring.names)))


def outdated(row: Row, wanted: Wanted, part: str) -> list[str]:
    """Names of a part that the row has no value of by the wanted definition."""
    kept = row.get("other_definitions", {}).get(part, {})
    return [
        name
        for name, definition in wanted[part].items()
        if (row[part].get(name) or {}).get("definition") != definition
        and definition not in kept.get(name, {})
    ]


def failed(row: Row, wanted: Wanted, error: Mapping[str, Any]) -> bool:
    """Whether what the row lacks was tried, and failed as ``error`` (error.json) says.

    A model that is done stays so for those who want no more of it than it has.
    """
    tried = error.get("asked", {})
    return any(
        tried.get(part, {}).get(name) == wanted[part][name]
        for part in PARTS
        for name in outdated(row, wanted, part)
    )


def keep(row: Row, part: str, name: str, value: Mapping[str, Any]) -> None:
    """Put a new value into a row; that of another definition, if one stands there, is kept.

    A kept measure takes its seconds with it: those in ``costs`` are of the value computed last.
    """
    before = row[part].get(name)
    if before and before["definition"] != value["definition"]:
        others = row.setdefault("other_definitions", {}).setdefault(part, {}).setdefault(name, {})
        seconds = row["costs"].get("measure_seconds", {}).get(name) if part == "measures" else None
        others[before["definition"]] = before | ({} if seconds is None else {"seconds": seconds})
    row[part][name] = dict(value)


def seen(row: Row, wanted: Wanted) -> Row:
    """The row as somebody sees it who wants these definitions.

    A kept value takes the place of one by another definition, with its seconds, and the digest is
    that of what is seen. What was never computed by the wanted definition stays as it is.
    """
    chosen = list(_kept(row, wanted))
    if not chosen:
        return row
    view = {**row, **{part: dict(row[part]) for part in PARTS}}
    seconds = dict(row["costs"].get("measure_seconds", {}))
    for part, name, value in chosen:
        view[part][name] = {k: v for k, v in value.items() if k != "seconds"}
        if "seconds" in value:
            seconds[name] = value["seconds"]
    view["costs"] = {**row["costs"], "measure_seconds": seconds}
    return view | {"row_digest": row_digest(view)}


def _kept(row: Row, wanted: Wanted) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(part, name, value) of each kept value that is the wanted one."""
    for part, names in row.get("other_definitions", {}).items():
        for name, by_definition in names.items():
            definition = wanted[part].get(name)
            if definition in by_definition and row[part][name]["definition"] != definition:
                yield part, name, by_definition[definition]
