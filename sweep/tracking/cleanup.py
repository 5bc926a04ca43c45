"""Delete what W&B's client left on disk, once the service is seen to hold all of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from sweep.store import Store
from sweep.tracking.compare import LocalRun, differences, local_runs
from sweep.tracking.server import Server
from sweep.tracking.settings import TrackingSettings, wandb_folder


@dataclass
class CleanupReport:
    """``kept``: model ids with folders whose runs the service does not hold completely."""

    removed: list[Path] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    freed_bytes: int = 0


def remove_synced(
    store: Store, study: str, settings: TrackingSettings, *, dry_run: bool = False
) -> CleanupReport:
    """Delete the offline folders of runs that the service holds, as read back from it now.

    Where there are no folders, nobody is asked.

    Raises:
        ServiceError: the service cannot be asked; nothing is deleted then.
        ValueError: no such study.
    """
    report = CleanupReport()
    folder = wandb_folder(store.study(study))
    runs = [run for run in local_runs(store, study) if isinstance(run, LocalRun)]
    left = {run.model_id: sorted(folder.glob(f"offline-run-*-{run.model_id}")) for run in runs}
    runs = [run for run in runs if left[run.model_id]]
    if not runs:
        return report
    there = Server(settings).runs([run.model_id for run in runs])
    for run in runs:
        if differences(run, there.get(run.model_id)):
            report.kept.append(run.model_id)
            continue
        for path in left[run.model_id]:
            report.freed_bytes += sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
            report.removed.append(path)
            if not dry_run:
                shutil.rmtree(path)
    return report
