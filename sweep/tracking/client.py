"""The only module that uses the W&B client for runs: opens, continues and closes one.

Used inside the recorder process and by ``sync``; never imported by a process that trains.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import wandb
from wandb.proto import wandb_internal_pb2

from sweep.tracking.content import RunContent, loggable
from sweep.tracking.offline import read_records
from sweep.tracking.server import NO_RUN, Server
from sweep.tracking.settings import TrackingSettings, default_entity

LOG_TIMEOUT_S = 10.0


class OpenRun:
    """One W&B run that takes epochs. Steps are epochs, so a repeated one cannot appear twice."""

    def __init__(
        self,
        content: RunContent,
        settings: TrackingSettings,
        folder: Path,
        *,
        online: bool,
        epochs_there: int | None = None,
    ) -> None:
        """Start the run, or continue it where the service has it already.

        ``epochs_there``: the last epoch that the service has, or ``NO_RUN``; None: ask it.

        Raises:
            Exception: whatever the client raises; the caller decides what a failure means.
        """
        self.online = online
        entity = settings.entity or default_entity()
        if online and epochs_there is None:
            remote = Server(settings).runs([content.model_id]).get(content.model_id)
            epochs_there = remote.last_epoch if remote else NO_RUN
        if not online:
            remove_offline(folder, content.model_id)
        self.run = wandb.init(
            id=content.model_id,
            name=content.name,
            project=settings.project,
            entity=entity,
            group=content.study,
            job_type="model",
            tags=content.tags,
            config=content.config,
            resume="allow",
            reinit="create_new",
            settings=client_settings(settings, folder, online=online),
        )
        self.content = content
        self.run_folder = Path(self.run.settings.sync_dir)
        # A service that reports its own last step knows best: what it has is never sent again.
        self.last_epoch = max(epochs_there or 0, self.run.starting_step - 1, 0)
        self.run.define_metric("epoch")
        self.run.define_metric("*", step_metric="epoch")

    def log(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Send the epochs that are not there yet."""
        for record in records:
            if record["epoch"] > self.last_epoch:
                self.run.log(loggable(record), step=record["epoch"], commit=True)
                self.last_epoch = record["epoch"]

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary and close the run; its local files go where they are of no more use.

        Raises:
            TimeoutError: the service did not take everything in time.
        """
        links = {"link/sibling": self._sibling(), "link/slurm_job": slurm_job(summary)}
        self.run.summary.update({**summary, **{k: v for k, v in links.items() if v is not None}})
        self.run.finish(exit_code=0 if summary["status"] == "done" else 1)
        self._tidy()

    def interrupt(self) -> None:
        """Close the run as one that will go on later: the job was asked to stop."""
        self.run.mark_preempting()
        self.run.finish(exit_code=1)
        self._tidy()

    def _sibling(self) -> str | None:
        """Address of the other checkpoint of the same training."""
        url, sibling = self.run.url if self.online else None, self.content.sibling
        return url.replace(self.content.model_id, sibling) if url and sibling else None

    def _tidy(self) -> None:
        """Inodes count on clusters: keep the one file that `wandb sync` reads, or nothing."""
        if self.online:
            shutil.rmtree(self.run_folder, ignore_errors=True)
            return
        _wait_for_log(self.run_folder)
        for path in self.run_folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


def client_settings(settings: TrackingSettings, folder: Path, *, online: bool) -> wandb.Settings:
    """The client with all switched off that is not the run itself."""
    return wandb.Settings(
        mode="online" if online else "offline",
        root_dir=str(folder.parent),
        init_timeout=settings.init_timeout_s,
        finish_timeout=settings.finish_timeout_s,
        finish_timeout_raises=True,
        console="off",
        silent=True,
        symlink=False,
        x_primary=False,  # no config.yaml and wandb-summary.json: the run has both anyway
        disable_code=True,
        save_code=False,
        disable_git=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_disable_viewer=True,
        x_save_requirements=False,
        x_skip_transaction_log=online,  # the history on our own disk is the log
    )


def _wait_for_log(folder: Path) -> None:
    """Wait until an offline run is on disk: the client says "finished" a little before it is.

    Raises:
        TimeoutError: its last record did not come.
    """
    deadline = time.monotonic() + LOG_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            records = read_records(folder)
        except ValueError:
            records = []
        record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        if records and record.FromString(records[-1]).HasField("exit"):
            return
        time.sleep(0.01)
    raise TimeoutError("the offline run was not written to its end")


def remove_offline(folder: Path, model_id: str) -> None:
    """Delete a model's earlier offline folders: each new one is complete in itself."""
    for path in folder.glob(f"offline-run-*-{model_id}"):
        shutil.rmtree(path, ignore_errors=True)


def slurm_job(summary: Mapping[str, Any]) -> str | None:
    """The Slurm job that a model comes from, as ``sacct -j`` takes it; None if there was none.

    The job that trained it; of a model trained elsewhere, that which evaluated or measured it.
    """
    names = ("array_job_id", "array_task_id", "job_id")
    for work in ("", "evaluation.", "measures."):
        array, task, job = (summary.get(f"provenance/{work}slurm_{name}") for name in names)
        if array and task:
            return f"{array}_{task}"
        if job:
            return str(job)
    return None
