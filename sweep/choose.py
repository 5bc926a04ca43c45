"""Choosing some of a study's trainings: by axis, by status, by the text of a failure's reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sweep import definitions, manifest
from sweep.axes import level_name
from sweep.convert import unknown
from sweep.failures import failure
from sweep.plan import progress
from sweep.setting import Job, model_axes
from sweep.store import STATUSES, Store

_EXTRA = ("status", "reason", "training")


def choose(store: Store, study: str, conditions: Sequence[str]) -> dict[int, Job]:
    """Jobs by manifest line that meet all conditions; all jobs if there is none.

    A condition is ``name=value,value``: an axis (``method=at,trades``), ``status=failed``,
    ``reason=text`` (contained in the failure's reason) or ``training=<beginning of an id>``.

    Raises:
        ValueError: no such study, axis, level or status; the message lists what there is.
    """
    jobs = manifest.jobs(store, study)
    wanted = [_parse(condition) for condition in conditions]
    status = progress(jobs.values(), store).status if wanted else {}
    asked = definitions.reader()

    def reason(job: Job) -> str:
        found = failure(store, job, asked(job))
        return "" if found is None else found[1]

    _check(wanted, jobs)
    return {
        line: job
        for line, job in jobs.items()
        if all(_meets(job, name, values, status, reason) for name, values in wanted)
    }


def _parse(condition: str) -> tuple[str, list[str]]:
    name, equals, values = condition.partition("=")
    if not equals or not values:
        raise ValueError(
            f"{condition!r} is no condition; write e.g. method=at,trades or status=failed"
        )
    return name, [values] if name == "reason" else values.split(",")


def _levels(job: Job, name: str) -> list[str]:
    return [level_name(model_axes(job.spec, c)[name]) for c in job.checkpoints]


def _check(wanted: Sequence[tuple[str, list[str]]], jobs: Mapping[int, Job]) -> None:
    if not jobs:
        return
    example = next(iter(jobs.values()))
    axes = list(model_axes(example.spec, example.checkpoints[0]))
    for name, values in wanted:
        if name not in axes and name not in _EXTRA:
            raise unknown("condition", name, [*axes, *_EXTRA])
        if name in ("reason", "training"):
            continue
        if name == "status":
            present: set[str] = set(STATUSES)
        else:
            present = {level for job in jobs.values() for level in _levels(job, name)}
        for value in values:
            if value not in present:
                raise unknown(name, value, present)


def _meets(
    job: Job,
    name: str,
    values: Sequence[str],
    status: Mapping[str, str],
    reason: Callable[[Job], str],
) -> bool:
    models = [job.model_id(c) for c in job.checkpoints]
    if name == "status":
        return any(status[model] in values for model in models)
    if name == "training":
        return any(job.training_id.startswith(value) for value in values)
    if name == "reason":
        return values[0] in reason(job)
    return any(level in values for level in _levels(job, name))
