"""A study's runs as the files have them, and what W&B shows differently."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep import manifest
from sweep.asked import Asked
from sweep.convert import to_plain
from sweep.schema import Checkpoint
from sweep.setting import Job, model_axes
from sweep.store import Row, Store
from sweep.tracking.content import RunContent, read_history, run_content
from sweep.tracking.server import RemoteRun

_NOT_FINITE = {math.inf: "Infinity", -math.inf: "-Infinity"}
_OURS = ("measure/", "cost/", "provenance/")


@dataclass(frozen=True)
class LocalRun:
    """One run as the files have it. ``last_epoch`` is 0 without a history."""

    content: RunContent
    history: Path
    epochs: int
    last_epoch: int

    @property
    def model_id(self) -> str:
        return self.content.model_id


@dataclass(frozen=True)
class NoRun:
    """A model without a run to send: ``damaged`` says what is wrong; None: not finished yet."""

    model_id: str
    damaged: str | None = None


def local_runs(
    store: Store, study: str, *, only_finished: bool = False
) -> Iterator[LocalRun | NoRun]:
    """All models of a study, in the order of the manifest.

    Models whose training is running belong to their job. Those that were interrupted have a run
    as far as they got, unless ``only_finished``.

    Raises:
        ValueError: no such study, or its manifest is damaged.
    """
    lines = list(manifest.lines(store, study))
    jobs = list(manifest.latest(lines).values())
    # asked before the rows are read: what ends in between has its row
    running = {job.training_id for job in jobs if store.is_running(job.training_id)}
    rows = {job.model_id(c): _row(store, job.model_id(c)) for job in jobs for c in job.checkpoints}
    asked = Asked(lines)
    unclear = asked.unclear(
        (job, row)
        for job in jobs
        for c in job.checkpoints
        if isinstance(row := rows[job.model_id(c)], dict)
    )
    for job in jobs:
        for checkpoint in job.checkpoints:
            model_id = job.model_id(checkpoint)
            row = rows[model_id]
            if isinstance(row, Exception):
                yield NoRun(model_id, damaged=str(row))
                continue
            shown = row and asked.row(job, row, unclear)
            try:
                run = _local_run(store, study, job, checkpoint, shown)
            except (ValueError, OSError) as error:
                yield NoRun(model_id, damaged=str(error))
                continue
            resting = run.epochs > 0 and job.training_id not in running and not only_finished
            yield run if run.content.finished or resting else NoRun(model_id)


def _row(store: Store, model_id: str) -> Row | ValueError | OSError | None:
    """A model's row, None if there is none, or what is wrong with it."""
    try:
        return store.read_row(model_id)
    except (ValueError, OSError) as error:
        return error


def _local_run(
    store: Store, study: str, job: Job, checkpoint: Checkpoint, row: Row | None
) -> LocalRun:
    path = store.training(job.training_id) / "history.jsonl"
    history = read_history(path)
    content = run_content(
        study=study,
        model_id=job.model_id(checkpoint),
        training_id=job.training_id,
        axes=row["axes"] if row else model_axes(job.spec, checkpoint),
        config=to_plain(job.spec),
        checkpoints=job.checkpoints,
        row=row,
    )
    return LocalRun(content, path, len(history), history[-1]["epoch"] if history else 0)


def differences(run: LocalRun, remote: RemoteRun | None) -> list[str]:
    """Names of what the service lacks or has otherwise. Empty: the run is there and equal."""
    if remote is None:
        return ["run"]
    config, summary = run.content.config, run.content.summary
    found = [f"config.{k}" for k, v in config.items() if not same(v, remote.config.get(k))]
    found += [f"tag {tag}" for tag in run.content.tags if tag not in remote.tags]
    found += [k for k, v in summary.items() if not same(v, remote.summary.get(k))]
    found += [k for k in _gone(run, remote) if k not in found]
    if remote.last_epoch != run.last_epoch:
        found.append(f"last epoch (theirs {remote.last_epoch}, ours {run.last_epoch})")
    if remote.history_lines not in (None, run.epochs):
        found.append(f"history (theirs {remote.history_lines} lines, ours {run.epochs})")
    if remote.state == "running":
        found.append("state")
    return found


def blanks(run: LocalRun, remote: RemoteRun) -> dict[str, str]:
    """What to send in place of values that the service shows and the row has no more.

    The client drops None and NaN, and services merge summaries, so a value can only be replaced:
    a number by the word that stands for NaN in W&B's JSON, a word by an empty one.
    """
    theirs = remote.summary
    undefined = (k for k, v in run.content.summary.items() if v is None)
    lost = [k for k in undefined if not same(None, theirs.get(k))] + _gone(run, remote)
    return {k: "NaN" if isinstance(theirs[k], int | float) else "" for k in lost}


def _gone(run: LocalRun, remote: RemoteRun) -> list[str]:
    theirs = (k for k, v in remote.summary.items() if k.startswith(_OURS) and not same(None, v))
    return [k for k in theirs if k not in run.content.summary]


def same(ours: Any, theirs: Any) -> bool:
    """Whether a value came back as it was sent. JSON makes 1.0 to 1, NaN to a word, tuples to
    lists, and leaves out what is None; ``blanks`` stand for None, too."""
    if ours is None:
        return theirs in (None, "", "NaN")
    if isinstance(ours, dict):
        return (
            isinstance(theirs, dict)
            and ours.keys() == theirs.keys()
            and all(same(v, theirs[k]) for k, v in ours.items())
        )
    if isinstance(ours, list | tuple):
        return (
            isinstance(theirs, list) and len(ours) == len(theirs) and all(map(same, ours, theirs))
        )
    if isinstance(ours, float) and not math.isfinite(ours):
        return bool(theirs == _NOT_FINITE.get(ours, "NaN"))
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    return bool(ours == theirs)
