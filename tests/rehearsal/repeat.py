"""Do random models of the rehearsal again, from nothing, and compare their rows bit for bit.

python -m tests.rehearsal.repeat [models] [seed]
"""

from __future__ import annotations

import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from sweep import manifest, task
from sweep.store import Store
from tests.slurm.cluster import PROJECT


def main() -> int:
    """Returns how many of the models came out differently."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    store = Store(PROJECT / "results" / "rehearsal")
    lines = list(manifest.lines(store, "rehearsal"))
    models = sorted({(job.training_id, c) for job in lines for c in job.checkpoints})
    chosen = random.Random(seed).sample(models, count)
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        again = Store(Path(folder))
        for training_id, checkpoint in chosen:
            model_id = f"{training_id}-{checkpoint}"
            for job in lines:  # all that was ever asked of this model, in the same order
                if job.training_id == training_id and checkpoint in job.checkpoints:
                    task.run(replace(job, checkpoints=(checkpoint,)), again)
            before, after = store.read_row(model_id), again.read_row(model_id)
            assert before is not None
            equal = after is not None and before["row_digest"] == after["row_digest"]
            different += not equal
            print(f"{model_id} {before['row_digest'][:16]} {'equal' if equal else 'DIFFERENT'}")
    print(f"{count - different} of {count} equal (seed {seed} of the draw)")
    return different


if __name__ == "__main__":
    sys.exit(main())
