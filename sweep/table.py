"""A study's results as one table: a row per model, written to models.parquet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from defenses.files import atomic_file
from sweep import manifest, steps
from sweep.asked import Asked
from sweep.columns import result_columns
from sweep.console import errors
from sweep.plan import progress
from sweep.setting import Job, model_axes
from sweep.store import Row, Store

LEADING = ("model_id", "training_id", "row_digest", "status", "reason", "num_classes")
SAME_AS_AXIS = {"threat.eps": "eps", "threat.norm": "norm"}  # a study's key -> a row's axis
NOT_ASKED = "not asked of this model"  # the reason of an empty measure that other models have
NUMBERS = {*steps.ACCURACY, *steps.AUTOATTACK}
BOOLEAN = ("extra_data", "early_stopping", "masking")


def collect(store: Store, study: str) -> pd.DataFrame:
    """The table of a study, from its manifest and the rows on disk; also written as Parquet.

    Models without a row are in it, with status ``missing`` or ``running``. All values of a column
    are of one definition (``Asked``): ``.attrs["parameters"]`` says by column what it is, and
    ``.attrs["warnings"]`` where models were left blank because they have only others.

    Raises:
        ValueError: no such study, or a damaged file (named).
    """
    lines = list(manifest.lines(store, study))
    jobs = list(manifest.latest(lines).values())
    status = progress(jobs, store).status
    models = [(job, c, store.read_row(job.model_id(c))) for job in jobs for c in job.checkpoints]
    asked = Asked(lines)
    unclear = asked.unclear((job, row) for job, _, row in models if row is not None)
    shown = [(job, c, row and asked.row(job, row, unclear)) for job, c, row in models]
    records = [_record(store, job, c, row, status[job.model_id(c)]) for job, c, row in shown]
    table = _typed(pd.DataFrame.from_records(records))
    described = asked.describe()
    table.attrs["parameters"] = {c: described[c] for c in table.columns if c in described}
    table.attrs["warnings"] = asked.warnings(row for *_, row in shown if row)
    path = store.study(study) / "models.parquet"
    with atomic_file(path) as file:
        table.to_parquet(file, index=False)
    return table


def show_warnings(table: pd.DataFrame) -> None:
    """Say on stderr where a table's columns are blank because definitions differ."""
    for warning in table.attrs.get("warnings", ()):
        errors.print("[yellow]warning:[/yellow]", end=" ")
        errors.print(warning, markup=False)


def correctness(store: Store, study: str) -> Callable[[str], Mapping[str, NDArray[np.bool_]]]:
    """From a model's id to its per-example correctness, of the accuracies in the study's table."""
    lines = list(manifest.lines(store, study))
    asked = Asked(lines)
    jobs = {
        job.model_id(checkpoint): job
        for job in manifest.latest(lines).values()
        for checkpoint in job.checkpoints
    }
    return lambda model: store.read_correct(model, asked.wanted(jobs[model])["metrics"])


def _record(
    store: Store, job: Job, checkpoint: Any, row: Row | None, status: str
) -> dict[str, Any]:
    row = row or {}
    failed_later = row.get("status") == "done" and status in ("failed", "oom")
    cause = store.read_error(job.training_id) if failed_later else row
    record: dict[str, Any] = {
        "model_id": job.model_id(checkpoint),
        "training_id": job.training_id,
        "row_digest": row.get("row_digest"),
        "status": status,
        "reason": cause.get("reason"),
        "num_classes": row.get("num_classes"),
        **(row.get("axes") or model_axes(job.spec, checkpoint)),
    }
    for axis, level in job.axes.get(checkpoint, {}).items():
        # what this study varies beyond a row's own axes
        record.setdefault(SAME_AS_AXIS.get(axis, axis), level)
    return record | result_columns(row)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Fixed types: a column does not change its type with what happens to be missing."""
    for name in ("num_classes", "steps"):
        table[name] = table[name].astype("Int64")
    for name in table.columns:
        if name in BOOLEAN:
            table[name] = table[name].astype("boolean" if table[name].isna().any() else bool)
        elif name.endswith(".reason") or name == "reason":
            table[name] = table[name].astype("string")
        elif name.startswith(("measure/", "cost/")) or name in NUMBERS:
            table[name] = table[name].astype("float64")
    _explain_gaps(table)
    leading = [c for c in LEADING if c in table]
    return table[leading + [c for c in table.columns if c not in leading]]


def _explain_gaps(table: pd.DataFrame) -> None:
    """Say of a finished model's empty measure that only other models were asked for it."""
    done = table["status"] == "done"
    for name in [c for c in table.columns if c.startswith("measure/") and c.endswith(".reason")]:
        not_asked = done & table[name].isna() & table[name.removesuffix(".reason")].isna()
        table.loc[not_asked, name] = NOT_ASKED
