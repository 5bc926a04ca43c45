"""Bring W&B up to date with the study's files: compare, send what differs, compare again.

The rows and histories on disk are the truth; nothing depends on what was logged live, nor on
offline folders. So any run can be made again, a second sync finds nothing to do, and one that was
cut off goes on where it stopped. "It is there" means: read back from the service and equal.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.store import Store
from sweep.tracking import bulk
from sweep.tracking.compare import LocalRun, blanks, differences, local_runs
from sweep.tracking.handle import RecorderHandle
from sweep.tracking.offline import damaged_folders
from sweep.tracking.server import NO_RUN, RUNS_PER_REQUEST, RemoteRun, Server
from sweep.tracking.settings import TrackingSettings, wandb_folder

ROUNDS = 3  # each with half as many runs at once: a service that refuses may be overrun
SETTLE_S = (0.0, 1.0, 4.0)  # W&B shows with a delay what it took: pauses before looking again
RUN_TIMEOUT_S = 120.0
MIN_FOLDERS = 4  # for fewer it does not pay to start one more process

Progress = Callable[[int, int], None]  # runs that are done with, runs in all


@dataclass
class SyncReport:
    """What became of each model's run, by model id. ``damaged_folders`` goes by path."""

    complete: list[str] = field(default_factory=list)  # was there already, and equal
    updated: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)  # running, or nothing to send yet
    broken: dict[str, str] = field(default_factory=dict)  # with the reason
    damaged_folders: dict[str, str] = field(default_factory=dict)  # offline ones, not needed here
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.broken


def sync(
    store: Store,
    study: str,
    settings: TrackingSettings,
    *,
    only_finished: bool = False,
    at_once: int = 8,
    progress: Progress = lambda done, total: None,
) -> SyncReport:
    """Make W&B show what the study's files say.

    ``only_finished`` leaves out trainings that were interrupted; those that are running now are
    always left to their own job. ``at_once``: how many runs are sent at the same time.

    Raises:
        ValueError: no such study; tracking is off.
        ServiceError: the service cannot be reached, or refuses this user. What was sent until
            then is there, and the next sync goes on from it.
    """
    if settings.mode == "none":
        raise ValueError("tracking.mode=none: nothing to sync with; use tracking=wandb")
    started = time.monotonic()
    report = SyncReport()
    runs: list[LocalRun] = []
    for run in local_runs(store, study, only_finished=only_finished):
        if isinstance(run, LocalRun):
            runs.append(run)
        elif run.damaged is not None:
            report.broken[run.model_id] = run.damaged
        else:
            report.unfinished.append(run.model_id)
    folder = wandb_folder(store.study(study))
    _Reconciler(settings, folder, runs, report, progress).run(at_once)
    report.damaged_folders = damaged_folders(folder)
    report.seconds = time.monotonic() - started
    return report


class _Refused(Exception):
    """One error after the other: the service is gone, or does not take so many at once."""


class _Reconciler:
    """The rounds of one sync. ``_todo`` are the runs that differ from what the service has."""

    def __init__(
        self,
        settings: TrackingSettings,
        folder: Path,
        runs: Sequence[LocalRun],
        report: SyncReport,
        progress: Progress,
    ) -> None:
        # Here is time, unlike at the end of a job.
        self._settings = dataclasses.replace(
            settings, jitter_s=0.0, init_timeout_s=RUN_TIMEOUT_S, finish_timeout_s=RUN_TIMEOUT_S
        )
        self._folder = folder
        self._report = report
        self._progress = progress
        self._server = Server(settings)
        self._remote: dict[str, RemoteRun] = {}
        self._errors: dict[str, str] = {}
        self._total = len(runs)
        self._todo = list(runs)

    def run(self, at_once: int) -> None:
        self._report.complete += self._look()
        self._send_folders(at_once)
        for round_ in range(ROUNDS):
            if not self._todo:
                break
            self._send(max(1, at_once >> round_))
            for pause_s in SETTLE_S:
                time.sleep(pause_s)
                self._report.updated += self._look()
                if not self._todo:
                    break
        for run in self._todo:
            left = ", ".join(differences(run, self._remote.get(run.model_id))[:5])
            error = self._errors.get(run.model_id)
            self._report.broken[run.model_id] = error or f"differs still after sending: {left}"

    def _look(self, model_ids: Collection[str] | None = None) -> list[str]:
        """Ask the service about these or all that is to do.

        Returns the runs that turn out to be equal; they are no longer to do.
        """
        asked = [r for r in self._todo if model_ids is None or r.model_id in model_ids]
        self._remote |= self._server.runs([run.model_id for run in asked])
        equal = {r.model_id for r in asked if not differences(r, self._seen(r))}
        for model_id in equal:
            (self._folder / "missing" / f"{model_id}.json").unlink(missing_ok=True)
        self._todo = [run for run in self._todo if run.model_id not in equal]
        self._progress(self._total - len(self._todo), self._total)
        return sorted(equal)

    def _send_folders(self, at_once: int) -> None:
        """First what the service has nothing of, where an offline folder holds it.

        What has come through is compared while the rest is on its way.
        """
        new = [run.model_id for run in self._todo if self._seen(run) is None]
        folders = bulk.intact_folders(self._folder, new)
        if len(folders) < MIN_FOLDERS:
            return
        before = self._total - len(self._todo)
        sent: list[str] = []
        looked = 0

        def on_sent(model_ids: list[str]) -> None:
            nonlocal looked
            sent.extend(model_ids)
            self._progress(before + len(sent), self._total)
            if len(sent) - looked >= RUNS_PER_REQUEST:
                self._report.updated += self._look(set(sent[looked:]))
                looked = len(sent)

        bulk.upload(folders, self._folder, self._settings, at_once, on_sent)
        self._report.updated += self._look()

    def _seen(self, run: LocalRun) -> RemoteRun | None:
        return self._remote.get(run.model_id)

    def _send(self, at_once: int) -> None:
        """Send what is to do. Errors are remembered; what counts is what the service has then."""
        before = self._total - len(self._todo)
        answered = failures_in_a_row = 0

        def on_answer(model_id: str, error: str | None) -> None:
            nonlocal answered, failures_in_a_row
            answered += 1
            failures_in_a_row = failures_in_a_row + 1 if error else 0
            if error:
                self._errors[model_id] = error
            self._progress(before + answered, self._total)
            if failures_in_a_row >= 2 * at_once:
                raise _Refused

        handle = RecorderHandle(
            self._settings,
            self._folder,
            online=True,
            at_once=at_once,
            on_answer=on_answer,
        )
        try:
            for run in self._todo:
                handle.send(_close_message(run, self._seen(run)))
            handle.drain(2 * RUN_TIMEOUT_S * (1 + len(self._todo) / at_once))
        except _Refused:
            pass  # the next look tells whether the service is there at all
        finally:
            handle.kill()


def _close_message(run: LocalRun, remote: RemoteRun | None) -> dict[str, Any]:
    content = run.content
    if remote is not None:  # keep others' tags; blank out columns that the row lost
        tags = [*content.tags, *(tag for tag in remote.tags if tag not in content.tags)]
        summary = {**content.summary, **blanks(run, remote)}
        content = dataclasses.replace(content, tags=tags, summary=summary)
    return {
        "op": "close",
        "run": content.to_plain(),
        "history": str(run.history),
        "epochs_there": remote.last_epoch if remote else NO_RUN,
    }
