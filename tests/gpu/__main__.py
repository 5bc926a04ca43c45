"""All checks of training that need a GPU, in one command of at most 25 minutes on an H100:

    MAIR_PATH=<checkout> python -m tests.gpu --images <folder> --out <folder>

``--images`` has CIFAR-10 as files train/<class>/*, test/<class>/*, or is an .npz as dataset=npz
takes it; MAIR is a checkout of https://github.com/Harry24k/MAIR. ``--parts exact,speed`` picks some
of the parts, for shorter sessions: none takes more than nine minutes. Each part runs in a process
of its own with its own share of the time, and what it has found is in ``gpu.json`` of ``--out`` as
soon as it is found: a part that fails or runs out of time costs the others nothing, and goes on
where it was if it is started again. ``--tiny`` runs the same code on a CPU, in minutes, on digits.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

from defenses.spec import DatasetSpec
from tests.gpu.parts import PARTS, Result, Setup

BUDGET_S = {"exact": 180, "speed": 390, "engines": 390, "run": 540}  # together 25 minutes


def in_this_process(part: str, setup: Setup) -> None:
    """Run one part; its file always holds all that it has found so far."""
    target = setup.out / f"{part}.json"

    def keep(found: Result) -> None:
        target.write_text(json.dumps(found))

    PARTS[part](setup, keep)


def in_a_process(part: str, arguments: list[str], out: Path) -> Result:
    """Run one part within its time, and add how it ended to what it found."""
    began = time.monotonic()
    target = out / f"{part}.json"
    target.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.gpu", *arguments, "--here", part]
    try:
        status = subprocess.run(command, timeout=BUDGET_S[part]).returncode
        ended = "done" if status == 0 else f"failed with exit status {status}"
    except subprocess.TimeoutExpired:
        ended = f"stopped after its {BUDGET_S[part]} s"
    found: Result = json.loads(target.read_text()) if target.exists() else {}
    return {"ended": ended, "took_s": round(time.monotonic() - began, 1)} | found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", help="folder with train/<class>/*, test/<class>/*, or .npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--tiny", action="store_true", help="on a CPU, on digits, in minutes")
    parser.add_argument("--here", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    chosen = arguments.parts.split(",")
    if not set(chosen) <= set(PARTS):
        parser.error(f"--parts: choose from {', '.join(PARTS)}")
    if not arguments.tiny and not arguments.images:
        parser.error("--images is needed, a folder with CIFAR-10; or --tiny")
    if not arguments.tiny and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; --tiny runs the same code on a CPU")
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cpu" if arguments.tiny else "cuda")
    kind = "npz" if str(arguments.images).endswith(".npz") else "image_folder"
    images = DatasetSpec(name=kind, path=arguments.images)
    setup = Setup(
        device, DatasetSpec() if arguments.tiny else images, arguments.out, arguments.tiny
    )
    if arguments.here:
        in_this_process(arguments.here, setup)
        return 0

    report = arguments.out / "gpu.json"
    found: Result = json.loads(report.read_text()) if report.exists() else {}
    name = "CPU" if arguments.tiny else torch.cuda.get_device_name()
    found["machine"] = f"{name}, torch {torch.__version__}, {platform.platform()}"
    for part in chosen:
        found[part] = in_a_process(part, sys.argv[1:], arguments.out)
        report.write_text(json.dumps(found, indent=1))
        shown = {key: value for key, value in found[part].items() if key != "curves"}
        print(part, json.dumps(shown, indent=1), flush=True)
    return sum(found[part]["ended"] != "done" for part in chosen)


if __name__ == "__main__":
    sys.exit(main())
