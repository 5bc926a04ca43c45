"""What a model's W&B run contains: pure functions from its row and its history.

Live logging, ``sync`` and the tests all use these, so that a run is the same whichever way it
came to be. Names are the column names of ``models.parquet``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sweep.axes import level_name
from sweep.columns import result_columns

MAX_TAG = 64  # characters; W&B refuses longer ones
CURVES = ("pgd_selection", "clean_selection", "loss")  # of the history: what views draw by epoch


@dataclass(frozen=True, kw_only=True)
class RunContent:
    """Everything of a run but its history. ``summary`` is empty while the model is in training."""

    model_id: str
    name: str
    study: str
    sibling: str | None  # the other checkpoint of the training, if the study has both
    tags: list[str]
    config: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def finished(self) -> bool:
        """Whether nothing more is to come, for better or worse."""
        return self.summary.get("status") not in (None, "running")


def run_content(
    *,
    study: str,
    model_id: str,
    training_id: str,
    axes: Mapping[str, Any],
    config: Mapping[str, Any],
    checkpoints: Sequence[str],
    row: Mapping[str, Any] | None = None,
) -> RunContent:
    """The run of one model; ``checkpoints`` are those that the study has of its training.

    Axes win over equally named keys of ``config``.
    """
    checkpoint = model_id.removeprefix(f"{training_id}-")
    identity = {"training_id": training_id, "checkpoint": checkpoint}
    sibling = next((f"{training_id}-{c}" for c in checkpoints if c != checkpoint), None)
    if sibling is not None:
        identity["sibling"] = sibling
    return RunContent(
        model_id=model_id,
        name=display_name(model_id, axes),
        study=study,
        sibling=sibling,
        tags=[*tags(study, axes), f"training:{training_id}"],
        config=_without_empty({**config, **axes, **identity}),
        summary=summary(row) if row is not None else {},
    )


def display_name(model_id: str, axes: Mapping[str, Any]) -> str:
    """What people read in lists of runs: the main levels, and enough of the id to tell it."""
    training_id, _, checkpoint = model_id.rpartition("-")
    method = axes.get("method", "")
    steps = axes.get("steps")
    words = [
        axes.get("imported") or axes.get("architecture", ""),
        f"{method}-{steps}" if steps is not None else method,
        "awp" if axes.get("optimizer") == "awp" else "",
        f"b{axes['batch_size']}" if axes.get("batch_size") is not None else "",
        axes["augmentation"] if axes.get("augmentation", "none") != "none" else "",
        "extra" if axes.get("extra_data") else "",
        checkpoint,
        training_id[:6],
    ]
    return " ".join(filter(None, words))


def tags(study: str, axes: Mapping[str, Any]) -> list[str]:
    """``axis:level`` for each axis that applies, and the study. In a fixed order.

    No "=": wandb-workspaces would double it in a filter, even inside quotes.
    """
    words = [f"{axis}:{level_name(level)}" for axis, level in axes.items() if level is not None]
    return [tag[:MAX_TAG] for tag in (f"study:{study}", *words)]


def summary(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row under the column names of the table. Undefined values and absent notes are None."""
    return {
        "model_id": row["model_id"],
        "training_id": row["training_id"],
        "row_digest": row.get("row_digest"),
        "status": row["status"],
        "reason": row.get("reason"),
        "num_classes": row.get("num_classes"),
        **result_columns(row),
    }


def read_history(path: Path) -> list[dict[str, Any]]:
    """The epochs of ``history.jsonl``, in order; empty if there is none. A torn end is left out.

    Raises:
        ValueError: a line in the middle is damaged, or the epochs do not rise.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return []
    *lines, _torn = text.split("\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            epoch = record["epoch"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}, line {number} is damaged") from None
        if records and epoch <= records[-1]["epoch"]:
            raise ValueError(f"{path}, line {number}: epoch {epoch} comes twice or out of order")
        records.append(record)
    return records


def loggable(values: Mapping[str, Any]) -> dict[str, Any]:
    """A history record without what W&B could not draw: nulls and nested values."""
    return {k: v for k, v in values.items() if isinstance(v, bool | int | float | str)}


def _without_empty(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Nested configuration without empty groups, which W&B would drop silently."""
    kept = {k: _without_empty(v) if isinstance(v, Mapping) else v for k, v in tree.items()}
    return {k: v for k, v in kept.items() if v != {}}
