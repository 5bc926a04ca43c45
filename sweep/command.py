"""What launch.py does: one setting, or a study handed to a launcher."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sweep import compose, dispatch, manifest, schema, task
from sweep.console import errors, follow_one, show_row, user_errors
from sweep.plan import plan, plan_one
from sweep.store import Store
from sweep.worker import StopFlag

SINGLE = "single"
EXIT = {"done": 0, "running": 0, "interrupted": 130}


def check(arguments: Sequence[str]) -> None:
    """Report a misspelt option or choice in one line before Hydra composes anything."""
    flags = ("", "-m", "--multirun", "-r", "--run")  # without a value of their own
    overrides = [
        argument
        for before, argument in pairwise(("", *arguments))
        if not argument.startswith("-")
        and ("=" in argument or before in flags or not before.startswith("-"))
    ]
    with user_errors():
        compose.check(overrides)


def run_one(config: DictConfig) -> int:
    """Train, evaluate and measure what one composed configuration describes; print its row(s).

    Also the task of other launchers of Hydra, which call it once per training of a study; the
    study's manifest is written by then. A model trained alone belongs to the study "single".
    """
    alone = HydraConfig.get().mode == RunMode.RUN
    with user_errors():
        plain = compose.checked(config)
        if alone:
            _warn_of_a_study(plain)
        store = Store(compose.results_dir(plain))
        job = plan_one(plain, store)
        store.check_writable()
        task.resolve_device(job.runtime.device)
        if alone:
            job = replace(job, study=SINGLE)
            manifest.append(store, SINGLE, [job])
        task.prepare([job], store)
    stop = StopFlag()
    stop.listen()

    with follow_one(job.spec.recipe.epochs) as on_epoch:
        report = task.run(job, store, should_stop=stop, on_epoch=on_epoch)
    for row in report.rows:
        show_row(row)
    if report.outcome != "done":
        folder = store.training(job.training_id)
        errors.print(f"{report.outcome}: {report.reason} ({folder})", markup=False)
    return EXIT.get(report.outcome, 1)


def _warn_of_a_study(config: Mapping[str, Any]) -> None:
    """Without -m a study is only a source of options: say so, and what would run it."""
    study = schema.study(config)
    if study.axes:
        given = shlex.join(HydraConfig.get().overrides.task)
        errors.print(
            f"warning: this trains one model; the axes of study {study.name} "
            f"({', '.join(study.axes)}) count only with -m: python launch.py -m {given}",
            markup=False,
        )


def run_study(
    overrides: Sequence[str],
    launcher: Mapping[str, Any],
    elsewhere: Callable[[list[list[str]]], Any],
) -> None:
    """Plan a study and run it by the chosen launcher; exits the process with its status."""
    from sweep.result import show_result  # pandas and plotly: not for a single training
    from sweep.slurm.dispatch import run_slurm

    with user_errors():
        planned = plan(overrides)
        kind = launcher.get("kind")
        if kind == "local":
            status = dispatch.run_local(planned, launcher)
        elif kind == "slurm":
            status = run_slurm(planned, launcher)
        else:
            status = dispatch.run_elsewhere(planned, elsewhere)
        if kind != "slurm":
            show_result(planned.store, planned.study)
    sys.exit(status)
