"""The files under ``results/``: where each thing lies, and reading and writing of rows.

Files are the truth. Slurm, W&B and tables are views of them that can be made again.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from defenses.files import write_atomically
from sweep import files, lease
from sweep.digest import digest

# Of a row: what became of a model. `running` and `missing` are never stored, only derived.
Status = Literal["done", "diverged", "oom", "failed", "running", "missing"]
STATUSES: tuple[Status, ...] = get_args(Status)
FINAL: tuple[Status, ...] = ("done", "diverged")  # running it again would give the same

Row = dict[str, Any]


@dataclass(frozen=True)
class Store:
    """One results folder, shared by all studies."""

    root: Path

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def zoo(self) -> Path:
        return self.root / "zoo"

    def training(self, training_id: str) -> Path:
        return self.root / "trainings" / training_id

    def model(self, model_id: str) -> Path:
        return self.root / "models" / model_id

    def study(self, name: str) -> Path:
        return self.root / "studies" / name

    def studies(self) -> list[str]:
        """Names of the studies that have a manifest here."""
        return sorted(p.parent.name for p in self.root.glob("studies/*/manifest.jsonl"))

    def check_writable(self) -> None:
        """Raise ``ValueError`` if results could not be written (read-only, full, not a folder)."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            write_atomically(self.root / ".writable", b"")
            (self.root / ".writable").unlink(missing_ok=True)
        except OSError as error:
            raise ValueError(
                f"results_dir={self.root} cannot be written: {error.strerror}"
            ) from None
        free_mb = shutil.disk_usage(self.root).free / 1e6
        if free_mb < 50:
            raise ValueError(f"results_dir={self.root} has only {free_mb:.0f} MB free")

    def read_row(self, model_id: str) -> Row | None:
        """The row of a model, or None. A damaged file raises ``ValueError`` that names it."""
        row: Row | None = files.read_json(self.model(model_id) / "row.json")
        return row

    def write_row(self, row: Row, *, before_commit: Callable[[], None] | None = None) -> Row:
        """Write a row, with its digest renewed."""
        row = row | {"row_digest": row_digest(row)}
        path = self.model(row["model_id"]) / "row.json"
        files.write_json(path, row, before_commit=before_commit)
        return row

    def write_correct(
        self,
        model_id: str,
        correct: Mapping[str, NDArray[np.bool_]],
        definitions: Mapping[str, str],
    ) -> None:
        """Store per-example correctness, eight examples a byte, under the accuracies' definitions.

        What is there by other definitions stays.
        """
        new = {f"{name}@{definitions[name]}": values for name, values in correct.items()}
        arrays: dict[str, Any] = {}
        for key, values in (self._all_correct(model_id) | new).items():
            arrays[key] = np.packbits(values)
            arrays[f"{key}_n"] = np.int64(len(values))
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        write_atomically(self.model(model_id) / "correct.npz", buffer.getvalue())

    def read_correct(
        self, model_id: str, definitions: Mapping[str, str] | None = None
    ) -> dict[str, NDArray[np.bool_]]:
        """Per-example correctness by the name of its accuracy; empty if there is none.

        ``definitions`` of the accuracies: of what each is wanted; None: of those in the row.
        """
        stored = self._all_correct(model_id)
        wanted = self._definitions(model_id) if definitions is None else definitions
        keys = {name: f"{name}@{definition}" for name, definition in wanted.items()}
        return {name: stored[key] for name, key in keys.items() if key in stored}

    def _all_correct(self, model_id: str) -> dict[str, NDArray[np.bool_]]:
        """All that is stored, by ``<name>@<definition>``."""
        path = self.model(model_id) / "correct.npz"
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as stored:
            found = {
                name: np.unpackbits(stored[name], count=int(stored[f"{name}_n"])).astype(bool)
                for name in stored.files
                if not name.endswith("_n")
            }
        # Code of the first versions, of jobs that wait in Slurm, too, writes names alone: by the
        # definition in the row.
        bare = {name: values for name, values in found.items() if "@" not in name}
        row = self._definitions(model_id) if bare else {}
        labelled = {f"{name}@{row[name]}": v for name, v in bare.items() if name in row}
        return labelled | {name: v for name, v in found.items() if name not in bare}

    def _definitions(self, model_id: str) -> dict[str, str]:
        """Metric -> definition of the value that stands in the row."""
        row = self.read_row(model_id) or {"metrics": {}}
        return {name: metric["definition"] for name, metric in row["metrics"].items()}

    def read_state(self, training_id: str) -> dict[str, Any]:
        """``state.json`` of a training: status, reason, attempt; empty if it never ended."""
        return files.read_json(self.training(training_id) / "state.json") or {}

    def read_error(self, training_id: str) -> dict[str, Any]:
        """``error.json``: how a training, or later work on its models, failed last; or empty."""
        return files.read_json(self.training(training_id) / "error.json") or {}

    def is_running(self, training_id: str) -> bool:
        """Whether somebody alive holds the training's lease."""
        attempt = lease.current(self.training(training_id))
        return attempt is not None and attempt.alive

    def manifest(self, study: str) -> Iterator[dict[str, Any]]:
        """The study's frozen tasks, in the order of their submission.

        Raises:
            ValueError: no such study (names those that exist), or a damaged line (names it).
        """
        path = self.study(study) / "manifest.jsonl"
        if not path.exists():
            known = ", ".join(self.studies()) or "none yet"
            raise ValueError(f"no study {study!r} in {self.root}; studies there: {known}")
        return read_manifest(path)


def read_manifest(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a manifest as plain data. A line cut short raises ``ValueError`` with its number."""
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except ValueError:
                if next(lines, None) is None:
                    remedy = "remove that line"
                else:  # jobs in a queue know their tasks by the numbers of lines
                    neighbour = number - 1 or 2
                    remedy = f"put a copy of line {neighbour} in its place (jobs count lines)"
                raise ValueError(
                    f"{path}, line {number} is cut short or damaged; {remedy} and run "
                    "the same command again to have the task written anew"
                ) from None


def with_earlier_models(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Lines of a manifest, each with the models that earlier lines of its training ask for.

    A line says what is wanted of a training's models; which models there are is what all lines say
    together, so that running a part of a study again does not shrink it.
    """
    known: dict[str, dict[str, dict[str, Any]]] = {}  # training -> checkpoint -> axes, so far
    for line in lines:
        models = known.setdefault(line["training_id"], {})
        for checkpoint in line["checkpoints"]:
            models[checkpoint] = models.get(checkpoint, {}) | line["axes"].get(checkpoint, {})
        # always last before best, as in a plan
        models_in_order = {c: models[c] for c in sorted(models, reverse=True)}
        yield line | {"checkpoints": list(models_in_order), "axes": models_in_order}


def row_digest(row: Mapping[str, Any]) -> str:
    """SHA-256 of a row's axes, metrics and measures: equal digests mean bit-identical results."""
    measured = {
        name: {key: value for key, value in result.items() if key != "seconds"}
        for name, result in row.get("measures", {}).items()
    }
    return digest([row.get("axes", {}), row.get("metrics", {}), measured])


def new_row(
    *,
    model_id: str,
    training_id: str,
    checkpoint: str,
    num_classes: int | None,
    axes: dict[str, Any],
) -> Row:
    """An empty row of a model."""
    return {
        "model_id": model_id,
        "training_id": training_id,
        "checkpoint": checkpoint,
        "status": "running",
        "reason": None,
        "num_classes": num_classes,
        "axes": axes,
        "metrics": {},
        "measures": {},
        "costs": {},
        "provenance": {},
        "created": time.time(),
    }
