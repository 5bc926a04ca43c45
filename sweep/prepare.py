"""Fetch what a study needs, once, where there is a network: jobs never download."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from defenses import datasets
from sweep import zoo
from sweep.plan import plan
from sweep.zoo import ZooModel


def prepare(overrides: Sequence[str], say: Callable[[str], None]) -> list[str]:
    """Fetch the data sets and the imported models of a study; returns what could not be had.

    What is there already is checked and left alone; a download that was cut short goes on.
    ``say`` gets a line for each thing that is there now. ``ValueError`` as ``plan``.
    """
    planned = plan(overrides)
    planned.store.check_writable()
    problems: dict[str, None] = {}
    wanted = dict.fromkeys((job.spec.dataset, job.spec.extra_data) for job in planned.jobs)
    for spec, extra_data in wanted:
        try:
            data = datasets.load(
                replace(spec, download=True), extra_data=extra_data, cache=planned.store.datasets
            )
            extra = f" and {len(data.extra)} extra" if data.extra is not None else ""
            say(f"{spec.name}: {len(data.train)}{extra} training and {len(data.test)} test images")
        except ValueError as error:
            problems[str(error)] = None
    for job in planned.jobs:
        if job.spec.imported is not None:
            model = ZooModel.parse(job.spec.imported.name)
            try:
                for path in zoo.prepare(model, Path(str(job.spec.imported.folder))):
                    say(f"{model.label}: {path}")
            except ValueError as error:
                problems[str(error)] = None
    return list(problems)
