"""``make rehearsal``: all 1,344 models of the grid through a real Slurm, under faults.

Interrupt it as you like: the same command goes on, also on another machine from an archive of
the results folder. It ends with the report and a summary of what happened.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.rehearsal import accounts
from tests.rehearsal.faults import strike_due
from tests.rehearsal.scene import Scene, scene
from tests.slurm.cluster import PROJECT

MODELS = 1344
ROUNDS = 12  # of the same command; each completes what faults have left open
SLURM_OPTIONS = (
    "hydra/launcher=slurm",
    "hydra.launcher.partition=scavenge",
    "hydra.launcher.cpus=1",
    "hydra.launcher.time_min=60",
    "hydra.launcher.signal_s=15",
    "hydra.launcher.parallelism=2",
    "hydra.launcher.chain=8",
    "hydra.launcher.measure_pack=24",
    "hydra.launcher.canary_min=1",
)


def complete(at: Scene, *overrides: str) -> None:
    """Give the same command until nothing is left to do; faults strike meanwhile."""
    for _ in range(ROUNDS):
        status = at.launch(*overrides, *SLURM_OPTIONS)
        if status not in (0, 3):
            sys.exit(f"launch.py ended with status {status}")
        if not at.jobs():
            return
        shown = 0.0
        while at.jobs():
            strike_due(at)
            if time.monotonic() - shown > 60:
                shown = time.monotonic()
                print(f"  {time.strftime('%H:%M:%S')} {at.models()} models", flush=True)
            time.sleep(5)
    sys.exit(f"not complete after {ROUNDS} times the same command")


def main() -> None:
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else PROJECT / "results" / "rehearsal"
    at = scene(results.absolute())
    replicates = ("study.sample=24", "seed=1,2,3")
    further = ("measures=rehearsal_more", "evaluation.masking_images=128")
    complete(at)
    complete(at, *replicates)
    complete(at, *further)
    complete(at, *further, *replicates)
    complete(at, "measures=rehearsal_costly", "study.sample=24")
    at.sweep("report", "rehearsal")
    accounts.show(at)


if __name__ == "__main__":
    main()
