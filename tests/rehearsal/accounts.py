"""What the rehearsal came to: rows, faults, repeated steps, calls of Slurm, time lost."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from sweep import manifest
from sweep.setting import Job
from sweep.store import Store
from tests.rehearsal.scene import Scene

STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)")


def show(scene: Scene) -> None:
    """Print the accounts, and keep them as ``accounts.json``."""
    result = collect(scene)
    (scene.notes / "accounts.json").write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))


def collect(scene: Scene) -> dict[str, Any]:
    store = Store(scene.results)
    jobs = manifest.jobs(store, "rehearsal")
    rows = [store.read_row(job.model_id(c)) or {} for job in jobs.values() for c in job.checkpoints]
    faults = scene.notes / "faults.jsonl"
    return {
        "models": len(rows),
        "status": dict(Counter(row.get("status", "missing") for row in rows)),
        "faults": [json.loads(line) for line in faults.read_text().splitlines()],
        "finished steps repeated": repeated_steps(store, jobs),
        "torn files": torn(store),
        "jobs started": starts(scene.study),
        "slurm calls": calls(scene),
        "time of undisturbed jobs": lost_time(scene, store),
    }


def repeated_steps(store: Store, jobs: dict[int, Job]) -> dict[str, int]:
    """Steps of which the training's log tells that they ended, and ended again.

    A measuring counts as the same if it gave the same number of measures, and an evaluation if
    such a measuring followed it: the second pass evaluates masking alone.
    """
    ends: Counter[tuple[str, str]] = Counter()
    for job in jobs.values():
        log = store.training(job.training_id) / "log.txt"
        text = log.read_text() if log.exists() else ""
        steps = re.findall(r"(trained|evaluated \w+|measured \w+: \d+) in [\d.]+ s", text)
        for step, following in zip(steps, [*steps[1:], ""], strict=True):
            after = following if step.startswith("evaluated") else ""
            ends[job.training_id, f"{step} {after}"] += 1
    counts = {"steps ended": sum(ends.values())}
    return counts | {"of them again": sum(n - 1 for n in ends.values())}


def torn(store: Store) -> list[str]:
    """Files that cannot be read to their end."""
    found = []
    for path in store.root.glob("*/*/*"):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".safetensors":
                load_file(path)
            elif path.suffix == ".npz":
                store.read_correct(path.parent.name)
        except (ValueError, OSError, SafetensorError):
            found.append(str(path.relative_to(store.root)))
    return found


def starts(study: Path) -> dict[str, int]:
    """How many jobs there were, and how often one began."""
    logs = [path.read_text() for path in study.glob("submissions/*/*_log.out")]
    return {"jobs": len(logs), "starts": sum(text.count(", start ") for text in logs)}


def calls(scene: Scene) -> dict[str, Any]:
    """Slurm commands of ours: each, all, and per minute from the first to the last."""
    times = [int(line.split()[0]) for line in (scene.notes / "slurm_calls.log").open()]
    minutes = active_minutes(times, scene.study)
    counts = scene.calls()
    total = sum(counts.values())
    return dict(counts) | {"all": total, "minutes": round(minutes), "per_minute": total / minutes}


def active_minutes(times: list[int], study: Path) -> float:
    """Minutes in which some job of the study wrote into its log or Slurm was called."""
    busy = {t // 60 for t in times}
    for path in study.glob("submissions/*/*_log.out"):
        stamps = [moment(line) for line in path.read_text().splitlines() if STAMP.match(line)]
        if stamps:
            busy |= set(range(int(stamps[0]) // 60, int(stamps[-1]) // 60 + 1))
    return float(len(busy))


def lost_time(scene: Scene, store: Store) -> dict[str, float]:
    """Of jobs that began once, with trainings that did, and ended by themselves: their seconds.

    ``own``: training, evaluating, measuring, as the trainings' logs have it. ``imports``: until a
    worker had loaded torch. ``lost``: the rest, from the job's first line to its last. The
    first training of a process imports more (its data set's reader, parts of torch): by what it
    took longer than later ones, ``late_imports``.
    """
    wall = imports = own = 0.0
    overheads: tuple[list[float], list[float]] = ([], [])  # of a process's first training, of later
    trainings = [str(line["training_id"]) for line in store.manifest("rehearsal")]
    for path in scene.study.glob("submissions/*/*_log.out"):
        text = path.read_text()
        ended = dict(re.findall(r"line (\d+): done after ([\d.]+) s", text))
        ready = [float(s) for s in re.findall(r"worker ready after ([\d.]+) s", text)]
        asked = re.findall(r", start \d+: lines ([\d, ]+) of", text)
        if not (len(ready) == len(asked) == 1 and len(ended) == len(asked[0].split(","))):
            continue
        stamps = [moment(line) for line in text.splitlines() if STAMP.match(line)]
        logs = [store.training(trainings[int(n)]) / "log.txt" for n in ended]
        seconds = [_own_seconds(log, stamps[0], stamps[-1]) for log in logs]
        if None in seconds:
            continue
        wall += stamps[-1] - stamps[0]
        imports += ready[0]
        known = [s for s in seconds if s is not None]
        own += sum(known)
        for i, (took, spent) in enumerate(zip(ended.values(), known, strict=True)):
            overheads[i > 0].append(float(took) - spent)
    first, later = (sum(o) / len(o) for o in overheads)
    late_imports = len(overheads[0]) * (first - later)
    lost = wall - imports - own
    return {
        "wall_s": wall,
        "imports_s": imports,
        "own_s": own,
        "lost_share": lost / (wall - imports),
        "overhead_of_a_first_training_s": first,
        "overhead_of_a_later_training_s": later,
        "lost_share_without_late_imports": (lost - late_imports) / (wall - imports - late_imports),
    }


def _own_seconds(log: Path, begin: float, end: float) -> float | None:
    """Seconds of the steps that ended in this time; None if the training had begun before."""
    total = 0.0
    for line in log.read_text().splitlines():
        if not STAMP.match(line) or not begin <= moment(line) <= end + 1:
            continue
        step = re.search(r"(trained|evaluated \w+|measured \w+: \d+) in ([\d.]+) s", line)
        attempt = re.search(r"attempt (\d+) on", line)
        if attempt and attempt[1] != "1":
            return None
        total += float(step[2]) if step else 0.0
    return total


def moment(line: str) -> float:
    """Seconds of a job log's line."""
    match = STAMP.match(line)
    assert match is not None
    return datetime.fromisoformat(match[1]).timestamp()
