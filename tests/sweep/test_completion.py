"""Hydra's completion for bash, as the shell asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweep.conftest import ROOT, environment

# what launch.py has imported by the time it has answered
WATCHED = """
import atexit, runpy, sys
atexit.register(lambda: print("with torch" if "torch" in sys.modules else "without torch"))
sys.argv = ["launch.py", "-sc", "query=bash"]
runpy.run_path("launch.py", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("line", "choices"),
    [
        ("study=", {"study=demo", "study=paper"}),
        ("metho", {"method=", "methods."}),
        ("threat.", {"threat.eps=", "threat.norm="}),
        ("-m hydra/launcher=", {"hydra/launcher=local", "hydra/launcher=slurm"}),
    ],
)
def test_groups_and_keys_are_offered_without_importing_torch(line: str, choices: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        cwd=ROOT,
        env=environment() | {"COMP_LINE": f"python launch.py {line}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    offered, torch = done.stdout.splitlines()
    assert choices <= set(offered.split())
    assert torch == "without torch"


def test_what_it_installs_works_in_bash(tmp_path: Path) -> None:
    (tmp_path / "python").symlink_to(sys.executable)
    script = """
eval "$(python launch.py -sc install=bash)"
COMP_LINE="python launch.py study=de" COMP_CWORD=2
hydra_bash_completion
echo "${COMPREPLY[*]}"
"""
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ROOT,
        env=environment()
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["study=demo"], done.stderr
