"""Arrays to sbatch, through submitit: check everything first, record what was accepted."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import _make_sbatch_string

from sweep.convert import to_plain
from sweep.slurm import client, queue
from sweep.slurm.arrays import Array
from sweep.slurm.job import RunLines
from sweep.slurm.options import SlurmOptions
from sweep.slurm.records import Submission, comment

# Jobs requeue themselves without counting (a training may be longer than the time limit); this
# is for signals that come before a task listens, which submitit answers.
_SUBMITIT_TIMEOUTS = 1000
_LIMIT_REACHED = ("MaxSubmitJob", "job submit limit", "Job violates accounting/QOS policy")


@dataclass(frozen=True)
class Target:
    """Where a submission lives: study and results folders, frozen code, nodes to keep away from."""

    study: Path
    results: Path
    code: Path
    bad_nodes: tuple[str, ...] = ()


def parameters(
    array: Array, options: SlurmOptions, target: Target, label: str, after: Sequence[str] = ()
) -> dict[str, Any]:
    """submitit's parameters for one array; ``label`` is its comment, ``after`` its dependencies."""
    asked = array.resources
    additional: dict[str, Any] = {k.replace("_", "-"): v for k, v in asked.sbatch.items()}
    additional |= {"requeue": True, "comment": label, "chdir": str(target.code)}
    if after:
        additional["dependency"] = ",".join(after)
    return {
        "job_name": target.study.name,
        "time": asked.time_min,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": asked.cpus,
        "gpus_per_node": asked.gpus or None,
        "mem": None if asked.memory_gb is None else f"{round(asked.memory_gb * 1024)}M",
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "exclude": ",".join(target.bad_nodes) or None,
        "array_parallelism": array.parallelism or len(array.elements),
        "signal_delay_s": options.signal_s,
        "stderr_to_stdout": True,
        "wckey": None,
        "use_srun": options.srun,
        # what srun does not take over from sbatch (the number of CPUs, since 22.05)
        "srun_args": ["--open-mode", "append", "--cpus-per-task", str(asked.cpus)],
        "setup": [*options.setup, f"export PYTHONPATH={shlex.quote(str(target.code))}"],
        "additional_parameters": additional,
    }


def script(array: Array, folder: Path, python: str | None, wanted: dict[str, Any]) -> str:
    """The text of an array's sbatch file, as submitit is going to write it."""
    command = f"{python or shlex.quote(sys.executable)} -u -m submitit.core._submit "
    return str(
        _make_sbatch_string(
            command=command + shlex.quote(str(folder)),
            folder=folder,
            map_count=len(array.elements) if len(array.elements) > 1 else None,
            **wanted,
        )
    )


def check(arrays: Sequence[Array], options: SlurmOptions, target: Target, folder: Path) -> None:
    """Ask Slurm whether it would accept each kind of job. Raises ``ValueError`` if not.

    Done for all before the first is submitted, so that a mistake leaves nothing half-submitted.
    """
    for array in arrays:
        path = folder / "check.sh"
        wanted = parameters(replace(array, elements=array.elements[:1]), options, target, "check")
        path.write_text(script(replace(array, elements=((0,),)), folder, options.python, wanted))
        try:
            client.run(["sbatch", "--test-only", str(path)], patience_s=client.PATIENCE_S)
        except client.SlurmBusy as error:
            raise ValueError(f"Slurm does not answer, nothing was submitted: {error}") from None
        except client.SlurmError as error:
            if not any(mark in str(error) for mark in _LIMIT_REACHED):
                raise ValueError(
                    f"Slurm refuses these jobs, nothing was submitted: {error}"
                ) from None
        finally:
            path.unlink(missing_ok=True)


def submit(
    arrays: Sequence[Array], options: SlurmOptions, target: Target, submission: Submission
) -> list[str | None]:
    """Submit the arrays in order; returns their job ids, None for those the cluster refused.

    A refused one is left for the next run of the same command: the cluster's limit on queued
    jobs may have been reached by somebody sharing the account meanwhile.
    """
    record = submission.read() | {
        "time": time.time(),
        "code": str(target.code),
        "options": to_plain(options),
        "arrays": [_described(array) for array in arrays],
    }
    submission.write(record)
    ids: list[str | None] = []
    canaries = sum(len(a.elements) for a in arrays if a.canary)
    for position, array in enumerate(arrays):
        after = _dependencies(array, arrays, ids, options.canary_min)
        label = comment(target.study, submission.name, position)
        task = RunLines(
            study=target.study,
            results=target.results,
            submission=submission.name,
            processes=array.processes,
            retries=options.retries,
            halt_after=min(options.halt_after, canaries) if array.canary else options.halt_after,
            exclude_after=options.exclude_after,
            uses_gpu=array.resources.gpus > 0 or "gres" in array.resources.sbatch,
        )
        wanted = parameters(array, options, target, label, after)
        job_id = _submit_one(array, task, submission.folder, options.python, wanted)
        ids.append(job_id)
        record["arrays"][position]["job_id"] = job_id
        submission.write(record)
    return ids


def _submit_one(
    array: Array, task: RunLines, folder: Path, python: str | None, wanted: dict[str, Any]
) -> str | None:
    executor = submitit.SlurmExecutor(folder, max_num_timeout=_SUBMITIT_TIMEOUTS, python=python)
    executor.update_parameters(**wanted)
    label = wanted["additional_parameters"]["comment"]
    for delay in (*client.PATIENCE_S, None):
        try:
            with client.cleaned():
                jobs = executor.map_array(task, [list(e) for e in array.elements])
            return str(jobs[0].job_id).partition("_")[0]
        except FailedJobError as failure:
            error = client.error_from(str(failure))
            _remove_leftovers(folder)
            if not isinstance(error, client.SlurmBusy):
                if any(mark in str(error) for mark in _LIMIT_REACHED):
                    return None
                raise ValueError(f"sbatch refused an array: {error}") from None
            if delay is None:
                return None
            time.sleep(delay)
            _cancel_unheard(label)
    raise AssertionError("the last delay is None")


def _cancel_unheard(label: str) -> None:
    """Cancel what a timed-out sbatch left behind: Slurm may have accepted it without saying so."""
    there = queue.query(max_age_s=0, patience_s=client.PATIENCE_S)
    arrays = {job.job_id.partition("_")[0] for job in there.jobs if job.comment == label}
    if arrays:
        client.run(["scancel", *sorted(arrays)], patience_s=client.PATIENCE_S)


def _remove_leftovers(folder: Path) -> None:
    """Files that submitit wrote for an array which was not accepted."""
    for path in [*folder.glob("*.pkl"), *folder.glob(".submission_file_*.sh")]:
        if len(path.stem) == 32 or path.name.startswith("."):  # not yet named after a job
            path.unlink(missing_ok=True)


def _dependencies(
    array: Array, arrays: Sequence[Array], ids: Sequence[str | None], canary_min: int
) -> list[str]:
    """What this array waits for: the start of the canaries, and the end of one before it."""
    after = []
    if not array.canary:
        for other, job_id in zip(arrays, ids, strict=False):
            if other.canary and job_id:
                after.append(f"after:{job_id}+{canary_min}")
    if array.after is not None and ids[array.after]:
        after.append(f"afterany:{ids[array.after]}")
    return after


def _described(array: Array) -> dict[str, Any]:
    return {
        "job_id": None,
        "elements": [list(e) for e in array.elements],
        "processes": array.processes,
        "parallelism": array.parallelism,
        "canary": array.canary,
        "partition": array.resources.partition,
        "time_min": array.resources.time_min,
    }
