"""Where a result comes from: code, versions, machine. Recorded with it, never acted upon."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import torch

from defenses.methods import METHODS
from defenses.spec import TrainingSpec
from sweep import files


def collect(device: torch.device, attempt: int) -> dict[str, Any]:
    """Of one piece of work, when it is done: by which code and versions, on what machine."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        **place(),
        **code(),
        "attempt": attempt,
        "device": device.type,
        "device_name": name,
        "torch_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),  # importing it takes seconds
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "python": platform.python_version(),
    }


def arithmetic(device: torch.device) -> dict[str, Any]:
    """What is in force at this moment on a GPU; None on a CPU, where there is nothing to choose."""
    if device.type != "cuda":
        return {"tf32": None, "deterministic_algorithms": None}
    cudnn: Any = torch.backends.cudnn  # its `conv` is unknown to type checkers
    precisions = (torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision)
    return {
        "tf32": "tf32" in precisions,
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
    }


def engine(spec: TrainingSpec) -> dict[str, Any]:
    """How the training's arithmetic was done: the options that it ran with."""
    recipe = spec.recipe
    return {
        "precision": recipe.precision,
        "attack_precision": recipe.attack_precision,
        "attack_mode": METHODS[spec.method].attack_mode,
        "tf32": recipe.tf32,
        "deterministic": recipe.deterministic,
        "channels_last": recipe.channels_last,
        "compile": recipe.compile,
        "cuda_graphs": recipe.cuda_graphs,
        "fold_batch_norm": recipe.fold_batch_norm,
    }


def place() -> dict[str, Any]:
    """The machine, and the Slurm job if it is one."""
    return {
        "host": socket.gethostname(),
        "node": os.environ.get("SLURMD_NODENAME"),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
        "slurm_array_job_id": os.environ.get("SLURM_ARRAY_JOB_ID"),
        "slurm_array_task_id": os.environ.get("SLURM_ARRAY_TASK_ID"),
    }


@functools.cache
def code() -> dict[str, Any]:
    """The commit of this code and whether files differ from it; null where git cannot tell.

    A copy made at submission brings what was true then in ``frozen.json``.
    """
    frozen = files.read_json(files.PROJECT / "frozen.json")
    if frozen:
        return {"commit": frozen["commit"], "modified": frozen["modified"]}
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "modified": None if changes is None else bool(changes)}


def diff() -> str:
    """What differs from the commit, as a patch."""
    return _git("diff", "HEAD") or ""


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(files.PROJECT), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
