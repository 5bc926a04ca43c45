"""Hand offline folders to W&B's own `wandb sync`, which is fast because it never enters Python.

It is only the first try: whatever it does not bring over, or brings over wrongly, is found by the
comparison that follows and sent again from the files.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sweep.tracking.offline import check_folder
from sweep.tracking.settings import TrackingSettings, client_environment, default_entity

POLL_S = 0.5
STALLED_S = 120.0  # without one more run coming through


def intact_folders(folder: Path, model_ids: Sequence[str]) -> list[Path]:
    """The offline folders of these models that can be read to the end."""
    by_model = {path.name.split("-", 3)[-1]: path for path in folder.glob("offline-run-*")}
    intact = []
    for model_id in model_ids:
        path = by_model.get(model_id)
        if path is None:
            continue
        try:
            check_folder(path)
        except (ValueError, OSError):
            continue
        intact.append(path)
    return intact


def upload(
    folders: Sequence[Path],
    folder: Path,
    settings: TrackingSettings,
    at_once: int,
    progress: Callable[[int], None],
) -> None:
    """Upload offline folders; given up when nothing moves. The caller looks at what arrived."""
    scratch = folder / "tmp" / f"{socket.gethostname()}-bulk-{time.time_ns():x}"
    scratch.mkdir(parents=True)
    entity = settings.entity or default_entity()
    marks = [next(path.glob("*.wandb")).with_suffix(".wandb.synced") for path in folders]
    for mark in marks:  # left by an earlier sync, perhaps with another service
        mark.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "wandb", "sync", "--include-synced", "-n", str(at_once)),
            *("--project", settings.project, *(("--entity", entity) if entity else ())),
            *map(str, folders),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=client_environment(folder, scratch),
        cwd=folder,
    )
    done, last_move = 0, time.monotonic()
    try:
        while process.poll() is None and time.monotonic() - last_move < STALLED_S:
            time.sleep(POLL_S)
            now = sum(mark.exists() for mark in marks)
            if now > done:
                done, last_move = now, time.monotonic()
                progress(done)
    finally:
        process.kill()
        process.wait()
        for mark in marks:
            mark.unlink(missing_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)
