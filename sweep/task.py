"""One task, top to bottom: train (or resume, or skip), evaluate, measure, write the rows.

Each step that is on disk already is skipped, so running a task again is always safe: after a
requeue, by a second submission, or by hand.
"""

from __future__ import annotations

import gc
import logging
import socket
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file

from defenses import datasets, training
from defenses.datasets import Data
from defenses.numerics import numerics
from defenses.spec import DatasetSpec
from sweep import definitions, files, imported, lease, provenance, steps, tracking
from sweep.convert import to_plain
from sweep.digest import digest
from sweep.schema import Checkpoint
from sweep.setting import Job, identity, model_axes
from sweep.store import Row, Store, new_row

log = logging.getLogger(__name__)

SAVE_MEASURES_S = 60.0  # a row is written at least so often while its measures are computed
Outcome = Literal["done", "diverged", "oom", "failed", "running", "interrupted"]


@dataclass(frozen=True)
class Report:
    """What became of one task. ``rows`` are the models' rows, with the values that it asked for."""

    training_id: str
    outcome: Outcome
    reason: str | None
    rows: tuple[Row, ...] = ()


def run(
    job: Job,
    store: Store,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_epoch: Callable[[dict[str, Any]], None] = lambda record: None,
) -> Report:
    """Do whatever is still to be done for a training and its models.

    Never raises for what goes wrong inside the task: a diverged, out-of-memory or crashed
    training is a row with a status and a reason, and the report says so.
    """
    folder = store.training(job.training_id)
    try:
        held = lease.acquire(folder)
    except OSError as error:  # a full or read-only disk: there is nowhere to record it
        return Report(job.training_id, "failed", f"{type(error).__name__}: {error}")
    if held is None:
        return Report(job.training_id, "running", "somebody else is working on this training")
    with held:
        try:
            return _run(job, store, held, should_stop, on_epoch)
        except training.Interrupted:
            return Report(job.training_id, "interrupted", "stopped at a checkpoint, to go on later")
        except lease.LeaseLost as lost:
            return Report(job.training_id, "running", str(lost))
        except training.Diverged as error:
            return _record_failure(job, store, held, "diverged", error)
        except (training.OutOfMemory, torch.OutOfMemoryError) as error:
            return _record_failure(job, store, held, "oom", error)
        except Exception as error:  # noqa: BLE001 - a task's crash is recorded, whatever it is
            return _record_failure(job, store, held, "failed", error)
        finally:
            _give_back_memory()


def _run(
    job: Job,
    store: Store,
    held: lease.Lease,
    should_stop: Callable[[], bool],
    on_epoch: Callable[[dict[str, Any]], None],
) -> Report:
    folder = store.training(job.training_id)
    device = resolve_device(job.runtime.device)
    torch.set_num_threads(job.runtime.torch_threads)
    log.info("attempt %d on %s, device %s", held.number, socket.gethostname(), device)

    data = load_data(job, store, device)
    if digest(identity(job.spec, data.fingerprint))[:16] != job.training_id:
        raise ValueError(
            "this task was frozen with other images, or by a version of the code with other "
            "definitions; run the study's command again to have it planned anew"
        )
    config = to_plain(job.spec)
    files.write_json(folder / "config.json", config, before_commit=held.check)

    state = store.read_state(job.training_id)
    must_train = state.get("status") != "done" and job.spec.imported is None
    live = tracking.LiveRun(
        job.tracking,
        study_dir=store.study(job.study),
        study=job.study,
        model_id=job.model_id(job.checkpoints[0]),
        training_id=job.training_id,
        axes=model_axes(job.spec, job.checkpoints[0]),
        config=config,
        history_path=folder / "history.jsonl",
        checkpoints=job.checkpoints,
    )
    with live as run:
        if job.spec.imported is not None:
            state = {"status": "done", "reason": None, "attempt": held.number}
            files.write_json(folder / "state.json", state, before_commit=held.check)
        if must_train:

            def after_epoch(record: dict[str, Any]) -> None:
                run.log_epoch(record)
                on_epoch(record)

            result = training.train(
                job.spec,
                data,
                folder,
                training_id=job.training_id,
                device=device,
                on_epoch=after_epoch,
                should_stop=should_stop,
                before_commit=held.check,
                checkpoint_minutes=job.runtime.checkpoint_minutes,
            )
            state = {
                "status": "done",
                "reason": None,
                "attempt": held.number,
                "result": {k: v for k, v in to_plain(result).items() if k != "history"},
                "provenance": provenance.collect(device, held.number),
            }
            files.write_json(folder / "state.json", state, before_commit=held.check)
            log.info("trained in %.1f s over all attempts", result.seconds)

        rows = []
        for checkpoint in job.checkpoints:
            if should_stop():
                raise training.Interrupted
            with numerics(device):  # whatever the training's precision: fp32, repeatable
                row = _finish_model(job, checkpoint, data, store, held, state, device, should_stop)
            rows.append(row)
            if checkpoint == job.checkpoints[0]:
                run.finish(row)
            else:
                tracking.write_run(
                    job.tracking,
                    store.study(job.study),
                    job.study,
                    row,
                    folder / "history.jsonl",
                    config,
                    job.checkpoints,
                )
    return Report(job.training_id, "done", None, tuple(rows))


def _finish_model(
    job: Job,
    checkpoint: Checkpoint,
    data: Data,
    store: Store,
    held: lease.Lease,
    state: dict[str, Any],
    device: torch.device,
    should_stop: Callable[[], bool],
) -> Row:
    """Evaluate and measure one checkpoint: only what its row does not have yet.

    Raises ``training.Interrupted`` between two measures; those that are there are in the row.
    """
    folder = store.training(job.training_id)
    model_id = job.model_id(checkpoint)
    threat = job.spec.threat
    row = store.read_row(model_id) or new_row(
        model_id=model_id,
        training_id=job.training_id,
        checkpoint=checkpoint,
        num_classes=data.num_classes,
        axes=model_axes(job.spec, checkpoint),
    )
    row["num_classes"] = data.num_classes  # a row of an attempt that failed did not know it
    wanted = definitions.wanted_by(job.evaluation, job.measuring, threat, job.train_size)
    metrics = definitions.outdated(row, wanted, "metrics")
    measures = definitions.outdated(row, wanted, "measures")
    if not metrics and not measures:
        if row["status"] != "done":
            row = _done(row, store, held)  # stopped right after the last measure
        return definitions.seen(row, wanted)

    weights = job.spec.imported
    if weights is not None:
        model = imported.load(weights, data, device)
    else:
        model = training.load_model(job.spec, data, folder / f"{checkpoint}.safetensors", device)
    if "seconds" in state.get("result", {}):
        row["costs"]["train_seconds"] = round(state["result"]["seconds"], 3)
    row["provenance"] |= _of_training(job, state)
    here = provenance.collect(device, held.number) | provenance.arithmetic(device)
    if metrics:
        started = time.perf_counter()
        known = store.read_correct(model_id, wanted["metrics"])
        values, correct = steps.evaluate(model, data, threat, job.evaluation, metrics, known)
        for name, value in values.items():
            definitions.keep(row, "metrics", name, value)
        seconds = round(time.perf_counter() - started, 4)
        if any(name in steps.ACCURACY for name in metrics):  # what `plan` foresees costs from
            row["costs"]["evaluate_seconds"] = seconds
        row["provenance"]["evaluation"] = here
        held.check()
        store.write_correct(model_id, correct, wanted["metrics"])
        row = store.write_row(row, before_commit=held.check)
        log.info("evaluated %s in %.1f s", checkpoint, seconds)
    if measures:
        started = saved = time.perf_counter()
        costs = row["costs"].setdefault("measure_seconds", {})
        row["provenance"]["measures"] = here

        def on_value(name: str, value: dict[str, Any], seconds: float) -> None:
            nonlocal saved
            definitions.keep(row, "measures", name, value)
            costs[name] = seconds
            stopping = should_stop()
            if stopping or time.perf_counter() - saved > SAVE_MEASURES_S:
                store.write_row(row, before_commit=held.check)
                saved = time.perf_counter()
            if stopping:
                raise training.Interrupted

        steps.measure(
            model,
            data,
            measures,
            threat=threat,
            measuring=job.measuring,
            initial_state=(
                load_file(folder / "initial.safetensors", device=str(device))
                if weights is None
                else None  # nobody knows them
            ),
            on_value=on_value,
        )
        spent = time.perf_counter() - started
        log.info("measured %s: %d in %.1f s", checkpoint, len(measures), spent)
    return definitions.seen(_done(row, store, held), wanted)


def _done(row: Row, store: Store, held: lease.Lease) -> Row:
    return store.write_row(row | {"status": "done", "reason": None}, before_commit=held.check)


def _of_training(job: Job, state: dict[str, Any]) -> dict[str, Any]:
    """Provenance of a finished training: of its last attempt, its result, and how it computed.

    Imported weights have none. Trainings of first versions did not write down where they ran.
    """
    if job.spec.imported is not None:
        return {}
    known = {"training": state.get("result", {}), "engine": provenance.engine(job.spec)}
    return {**state.get("provenance", {}), **known}


def _record_failure(
    job: Job, store: Store, held: lease.Lease, outcome: Outcome, error: BaseException
) -> Report:
    """Write what went wrong as error.json, as the training's state and as its models' rows."""
    reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    log.exception("attempt %d %s", held.number, outcome, exc_info=error)
    folder = store.training(job.training_id)
    report = {
        "status": outcome,
        "type": type(error).__name__,
        "reason": reason,
        "traceback": "".join(traceback.format_exception(error)),
        "attempt": held.number,
        "time": time.time(),
    } | provenance.place()
    rows = []
    try:
        state = store.read_state(job.training_id)
        trained = state.get("status") == "done"
        if trained:  # what failed is a value that some studies want of models that are done
            report["asked"] = definitions.reader()(job)
        files.write_json(folder / "error.json", report, before_commit=held.check)
        if not trained:
            state = {"status": outcome, "reason": reason, "attempt": held.number}
            files.write_json(folder / "state.json", state, before_commit=held.check)
        for checkpoint in job.checkpoints:
            row = store.read_row(job.model_id(checkpoint)) or new_row(
                model_id=job.model_id(checkpoint),
                training_id=job.training_id,
                checkpoint=checkpoint,
                num_classes=None,
                axes=model_axes(job.spec, checkpoint),
            )
            if row["status"] == "done":
                continue  # what failed now takes nothing from a model that was finished
            row |= {"status": outcome, "reason": reason}
            if trained:
                failed = "measures" if row["metrics"] else "evaluation"
                row["provenance"] |= _of_training(job, state) | {failed: provenance.place()}
            else:
                row["provenance"] = provenance.place()
            rows.append(store.write_row(row, before_commit=held.check))
            tracking.write_run(
                job.tracking,
                store.study(job.study),
                job.study,
                row,
                folder / "history.jsonl",
                to_plain(job.spec),
                job.checkpoints,
            )
    except (OSError, lease.LeaseLost) as second:
        # a full disk, or another attempt at work: the exit status and the log still tell
        log.error("the failure could not be recorded: %s", second)
    return Report(job.training_id, outcome, reason, tuple(rows))


def record_death(job: Job, store: Store, reason: str) -> None:
    """Record a task whose process died without a word: killed, or a crash below Python."""
    with suppress(OSError):  # the full disk that it may have died of
        held = lease.acquire(store.training(job.training_id))
        if held is not None:
            with held:
                _record_failure(job, store, held, "failed", RuntimeError(reason))


def resolve_device(device: str) -> torch.device:
    """``auto`` is the GPU where there is one. Raises ``ValueError`` for cuda without a GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but no GPU is visible here; use device=cpu or device=auto")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def _give_back_memory() -> None:
    """What this process keeps of the GPU's memory for later: others (``pack``) may need it now."""
    if torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()


@lru_cache(maxsize=2)
def _cached_data(spec: DatasetSpec, extra_data: bool, device: torch.device, cache: Path) -> Data:
    return datasets.load(spec, extra_data=extra_data, device=device, cache=cache)


def prepare(jobs: Iterable[Job], store: Store) -> None:
    """Load each data set once before workers start, so that what is cached on disk is there."""
    for spec, extra_data in dict.fromkeys((job.spec.dataset, job.spec.extra_data) for job in jobs):
        datasets.load(spec, extra_data=extra_data, cache=store.datasets)


def load_data(job: Job, store: Store, device: torch.device) -> Data:
    """The job's images on the device; kept between the tasks of one process."""
    return _cached_data(job.spec.dataset, job.spec.extra_data, device, store.datasets)
