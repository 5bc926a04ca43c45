"""What went wrong in a study: grouped by cause, each group with its nodes and one full trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep import definitions, lease, manifest
from sweep.causes import same_cause
from sweep.console import console
from sweep.setting import Job
from sweep.store import Store


@dataclass
class Group:
    """Trainings that ended in the same way. ``trace`` and ``log`` are those of one of them."""

    status: str
    reason: str
    trace: str | None
    log: Path
    trainings: list[str] = field(default_factory=list)
    nodes: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "status": self.status,
            "reason": self.reason,
            "count": len(self.trainings),
            "trainings": self.trainings,
            "nodes": dict(self.nodes),
            "trace": self.trace,
            "log": str(self.log),
        }


def group_failures(store: Store, study: str) -> list[Group]:
    """Every training of the study that ended badly, the largest group first."""
    groups: dict[tuple[str, str], Group] = {}
    wanted = definitions.reader()
    for job in manifest.jobs(store, study).values():
        found = failure(store, job, wanted(job))
        if found is None:
            continue
        status, reason, error = found
        key = (status, same_cause(reason))
        log = store.training(job.training_id) / "log.txt"
        group = groups.setdefault(key, Group(status, reason, error.get("traceback"), log))
        group.trainings.append(job.training_id)
        group.nodes[error.get("node") or error.get("host") or "unknown"] += 1
    return sorted(groups.values(), key=lambda g: len(g.trainings), reverse=True)


def failure(
    store: Store, job: Job, wanted: definitions.Wanted
) -> tuple[str, str, dict[str, Any]] | None:
    """(status, reason, error.json) of a training, or later work on its models, that ended badly."""
    folder = store.training(job.training_id)
    rows = [store.read_row(job.model_id(c)) for c in job.checkpoints]
    bad = [row for row in rows if row is not None and row["status"] not in ("done", "running")]
    error = store.read_error(job.training_id)
    if bad:
        return bad[0]["status"], bad[0]["reason"] or "", error
    if any(row is not None and definitions.failed(row, wanted, error) for row in rows):
        return error["status"], error["reason"], error
    attempt = lease.current(folder)
    unfinished = None in rows or any(row is not None and row["status"] != "done" for row in rows)
    if unfinished and attempt is not None and not attempt.alive and not attempt.released:
        reason = "ended without a word: killed, or its node was lost; the same command resumes it"
        return "lost", reason, attempt.owner
    return None


def show_failures(groups: Iterable[Group]) -> None:
    """Print the groups, each with the trace of one of its trainings."""
    groups = list(groups)
    if not groups:
        console.print("nothing failed")
        return
    for group in groups:
        nodes = ", ".join(f"{node} ({n})" for node, n in group.nodes.most_common(5))
        console.print(f"[bold red]{len(group.trainings)} {group.status}[/bold red]:", end=" ")
        console.print(group.reason, markup=False)
        console.print(f"  on {nodes}; for example {group.trainings[0]}", markup=False)
        console.print(f"  log: {group.log}", markup=False)
        if group.trace:
            console.print("  " + group.trace.strip().replace("\n", "\n  "), markup=False)
