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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sweep.tracking.offline import check_folder
from sweep.tracking.settings import TrackingSettings, client_environment, default_entity

POLL_S = 0.1
STALLED_S = 120.0  # without one more run coming through


def intact_folders(folder: Path, model_ids: Sequence[str]) -> dict[str, Path]:
    """The offline folders of these models that can be read to the end, by model id."""
    by_model = {path.name.split("-", 3)[-1]: path for path in folder.glob("offline-run-*")}
    intact = {}
    for model_id in model_ids:
        path = by_model.get(model_id)
        if path is None:
            continue
        try:
            check_folder(path)
        except (ValueError, OSError):
            continue
        intact[model_id] = path
    return intact


def upload(
    folders: Mapping[str, Path],
    folder: Path,
    settings: TrackingSettings,
    at_once: int,
    sent: Callable[[list[str]], None],
) -> None:
    """Upload offline folders; given up when nothing moves. The caller looks at what arrived.

    ``sent`` is told the model ids of those that came through since it was told last.
    """
    scratch = folder / "tmp" / f"{socket.gethostname()}-bulk-{time.time_ns():x}"
    scratch.mkdir(parents=True)
    entity = settings.entity or default_entity()
    marks = {
        model_id: next(path.glob("*.wandb")).with_suffix(".wandb.synced")
        for model_id, path in folders.items()
    }
    for mark in marks.values():  # left by an earlier sync, perhaps with another service
        mark.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "wandb", "sync", "--include-synced", "-n", str(at_once)),
            *("--project", settings.project, *(("--entity", entity) if entity else ())),
            *(path.name for path in folders.values()),  # so short that thousands fit
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=client_environment(folder, scratch),
        cwd=folder,
    )
    waiting, last_move = dict(marks), time.monotonic()
    try:
        while process.poll() is None and time.monotonic() - last_move < STALLED_S:
            time.sleep(POLL_S)
            if now := [model_id for model_id, mark in waiting.items() if mark.exists()]:
                for model_id in now:
                    del waiting[model_id]
                sent(now)
                last_move = time.monotonic()
    finally:
        process.kill()
        process.wait()
        for mark in marks.values():
            mark.unlink(missing_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)
