"""What the rehearsal came to: rows, faults, repeated steps, calls of Slurm, time lost."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from sweep import manifest
from sweep.setting import Job
from sweep.store import Store
from tests.rehearsal.scene import Scene

STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (.*)$")


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
        "jobs started": starts(scene.study),
        "slurm calls": calls(scene),
        "time of undisturbed jobs": lost_time(scene, store),
    }


def repeated_steps(store: Store, jobs: dict[int, Job]) -> dict[str, int]:
    """Steps of which the training's log tells that they ended, and ended again.

    A measuring counts as the same if it gave the same number of measures.
    """
    ends: Counter[tuple[str, str]] = Counter()
    for job in jobs.values():
        text = (store.training(job.training_id) / "log.txt").read_text()
        for step in re.findall(r"(trained|evaluated \w+|measured \w+: \d+) in [\d.]+ s", text):
            ends[job.training_id, step] += 1
    counts = {"steps ended": sum(ends.values())}
    return counts | {"of them again": sum(n - 1 for n in ends.values())}


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
    """Of jobs that began once and ended by themselves: where their seconds went.

    ``own``: training, evaluating, measuring, as the rows have it. ``imports``: until a worker had
    loaded torch. ``lost``: the rest, from the job's first line to its last.
    """
    wall = imports = own = 0.0
    lines = [Job.from_plain(task) for task in store.manifest("rehearsal")]
    done_twice = Counter(job.training_id for job in lines)
    for path in scene.study.glob("submissions/*/*_log.out"):
        text = path.read_text()
        ended = re.findall(r"line (\d+): done after ([\d.]+) s", text)
        ready = [float(s) for s in re.findall(r"worker ready after ([\d.]+) s", text)]
        asked = re.findall(r", start \d+: lines ([\d, ]+) of", text)
        undisturbed = len(ready) == len(asked) == 1 and len(ended) == len(asked[0].split(","))
        if not undisturbed or any(done_twice[lines[int(n)].training_id] > 1 for n, _ in ended):
            continue
        stamps = [moment(line) for line in text.splitlines() if STAMP.match(line)]
        wall += stamps[-1] - stamps[0]
        imports += ready[0]
        own += sum(_own_seconds(store, lines[int(number)]) for number, _ in ended)
    lost = wall - imports - own
    share = lost / (wall - imports) if wall > imports else float("nan")
    return {"wall_s": wall, "imports_s": imports, "own_s": own, "lost_s": lost, "lost_share": share}


def _own_seconds(store: Store, job: Job) -> float:
    seconds = 0.0
    for checkpoint in job.checkpoints:
        costs = (store.read_row(job.model_id(checkpoint)) or {"costs": {}})["costs"]
        seconds += costs.get("evaluate_seconds", 0) + costs.get("measure_seconds", {}).get("all", 0)
    return seconds + float(costs.get("train_seconds", 0))


def moment(line: str) -> float:
    """Seconds of a job log's line."""
    match = STAMP.match(line)
    assert match is not None
    return datetime.fromisoformat(match[1]).timestamp()
