"""Which jobs are run now, and what is said where none is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweep.plan import Plan, Progress, plan
from sweep.store import Status
from sweep.todo import nothing, select


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder: Path = tmp_path_factory.mktemp("results")
    return plan(["method=at", "seed=0,1,2,3", f"results_dir={folder}"])


def resumed(planned: Plan, resume: str) -> Plan:
    return replace(planned, config={**planned.config, "resume": resume})


def state(planned: Plan, *statuses: Status) -> Progress:
    models = [job.model_id("last") for job in planned.jobs]
    todo = tuple(i for i, s in enumerate(statuses) if s in ("failed", "oom", "missing"))
    return Progress(dict(zip(models, statuses, strict=True)), todo, frozenset())


def test_resume_chooses_by_status(planned: Plan) -> None:
    mixed = state(planned, "done", "failed", "missing", "running")
    assert select(resumed(planned, "all"), mixed) == [1, 2]
    assert select(resumed(planned, "failed"), mixed) == [1]
    assert select(resumed(planned, "missing"), mixed) == [2]


@pytest.mark.parametrize(
    ("resume", "statuses", "queued", "said"),
    [
        ("all", ("done",) * 4, 0, "nothing to do: everything is there already"),
        ("all", ("done", "running", "running", "running"), 0,
         "nothing to submit: 1 done, 3 running"),
        ("missing", ("running", "failed", "failed", "oom"), 0,
         "nothing to submit: 1 oom (resume=failed runs them), 2 failed (resume=failed runs them), "
         "1 running"),
        ("failed", ("missing",) * 4, 0, "nothing to submit: 4 missing (resume=missing runs them)"),
        ("all", ("missing",) * 4, 4, "nothing to submit: 4 missing, 4 tasks in the queue"),
        ("all", ("done", "done", "done", "diverged"), 0,
         "nothing to do: 3 done, 1 diverged (the same would come out again)"),
    ],
)  # fmt: skip
def test_what_is_said_where_nothing_is_run(
    planned: Plan, resume: str, statuses: tuple[Status, ...], queued: int, said: str
) -> None:
    found = nothing(resumed(planned, resume), state(planned, *statuses), queued)
    assert found == said
