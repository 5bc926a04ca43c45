"""Failures that are not the training's fault: told apart, counted per node, kept on disk."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Literal

from sweep import files

Fault = Literal["node", "storage"]

# What the kernel and CUDA say, in the text of the exception. A device-side assert or an
# out-of-memory error is not in the list: the training itself causes those.
_STORAGE = re.compile(
    r"No space left on device|Disk quota exceeded|Stale file handle|Input/output error"
    r"|Read-only file system|Transport endpoint is not connected"
)
_NODE = re.compile(
    r"no GPU is visible|No CUDA GPUs are available|CUDA driver|NVML|uncorrectable ECC"
    r"|CUDA error: (unknown error|unspecified launch failure|the launch timed out"
    r"|all CUDA-capable devices are busy|initialization error|device not ready"
    r"|hardware stack error)"
)
_RECENT_S = 24 * 3600.0  # a node that failed last week may be repaired
_NEARLY_FULL_BYTES = 4 * 2**20


def classify(reason: str | None, results: Path) -> Fault | None:
    """Whose fault a failure was: the node's, the shared storage's, or None: the training's.

    A worker that could not even write down why it died leaves no reason; a full disk tells.
    """
    if reason is not None and _STORAGE.search(reason):
        return "storage"
    if reason is not None and _NODE.search(reason):
        return "node"
    try:
        free = shutil.disk_usage(results).free
    except OSError:
        return "storage"
    return "storage" if free < _NEARLY_FULL_BYTES else None


def accelerator_problem() -> str | None:
    """What is wrong with the GPU this job was given, or None if it computes.

    In a process of its own: a broken driver may hang or crash whoever touches it.
    """
    probe = "import torch; x = torch.ones(256, 256, device='cuda'); assert (x @ x)[0, 0] == 256"
    try:
        result = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        return "no GPU is visible: the driver did not answer within 300 s"
    if result.returncode == 0:
        return None
    last = (result.stderr.strip().splitlines() or ["no message"])[-1]
    return f"no GPU is visible: {last}"


class Strikes:
    """Infrastructure failures of a study, one small file each, so that nobody shares a file."""

    def __init__(self, study: Path) -> None:
        self.folder = study / "strikes"

    def add(self, fault: Fault, node: str, job_id: str, reason: str) -> bool:
        """Remember one; whether that went well: on a full disk it is lost from the count."""
        now = time.time()
        content = {"fault": fault, "node": node, "job_id": job_id, "reason": reason, "time": now}
        try:
            files.write_json(self.folder / f"{job_id}-{now:.0f}.json", content)
        except OSError:
            return False
        return True

    def of_job(self, job_id: str) -> int:
        """How many a job had."""
        return sum(1 for _ in self.folder.glob(f"{job_id}-*.json"))

    def bad_nodes(self, at_least: int) -> list[str]:
        """Nodes at fault so many times within the last day."""
        count: Counter[str] = Counter()
        for path in self.folder.glob("*.json"):
            strike = files.read_json(path) or {}
            if strike.get("fault") == "node" and time.time() - strike["time"] < _RECENT_S:
                count[strike["node"]] += 1
        return sorted(node for node, times in count.items() if times >= at_least)
