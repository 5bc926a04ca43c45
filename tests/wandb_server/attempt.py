"""One attempt of a training, as far as W&B can see it, in a process of its own.

``attempt.py <results> <epochs> finished|interrupted|killed``
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from sweep import tracking
from sweep.convert import to_plain
from sweep.store import Store
from sweep.tracking import TrackingSettings
from tests.sweep.tracking.fabricate import STUDY, history, job


def main(root: Path, epochs: int, end: str) -> None:
    """Show some epochs, then end."""
    settings = TrackingSettings(jitter_s=0.0)
    store = Store(root)
    only = job(0, settings)
    row = store.read_row(only.model_id("last"))
    assert row is not None
    live = tracking.LiveRun(
        settings,
        store.study(STUDY),
        STUDY,
        only.model_id("last"),
        only.training_id,
        row["axes"],
        to_plain(only.spec),
        store.training(only.training_id) / "history.jsonl",
    )
    with live as run:
        for record in history(0)[:epochs]:
            run.log_epoch(record)
        if end == "killed":
            time.sleep(3.0)
            os.kill(os.getpid(), signal.SIGKILL)
        if end == "finished":
            run.finish(row)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
