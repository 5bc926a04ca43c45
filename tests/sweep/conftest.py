"""Running the real commands in processes of their own, small enough for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from defenses.architectures import build

ROOT = Path(__file__).resolve().parents[2]
# one epoch on few digits, cheap measures: what is tested is the path, not the numbers
SMALL = (
    "training.epochs=3",
    "threat.eps=0.05",
    "dataset.train_size=128",
    "dataset.test_size=96",
    "dataset.selection_size=32",
    "dataset.extra_size=32",
    "training.selection.size=null",
    "training.min_steps_per_epoch=0",
    "evaluation.masking_images=0",
    "tracking=none",
    "measures=[x_grad_norm,prob_margin,log_prod_of_fro]",
)
Launch = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "launch.py"), *arguments]


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB_", "SLURM_"))}
    return kept | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def launch() -> Launch:
    """launch(*arguments, cwd=...) runs launch.py and returns the finished process."""

    def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            cwd=cwd,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def sweep() -> Launch:
    """sweep(*arguments) runs ``python -m sweep``."""

    def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sweep", *arguments],
            cwd=cwd or ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def package(monkeypatch):
    """A stand-in for the optional package with its structure, one network and an ensemble."""

    class Named:
        def __init__(self, value):
            self.value = value

        def __eq__(self, other):
            return self.value == other.value

        def __hash__(self):
            return hash(self.value)

    def make():
        return build("resnet_small", num_classes=10)

    def load_model(name, *, model_dir, dataset, threat_model):
        model = make()
        path = model_dir / dataset / threat_model / f"{name}.pt"
        model.load_state_dict(torch.load(path, weights_only=True))
        return model

    listing = {
        "One": {"model": make, "gdrive_id": "id-one"},
        "Three": {"model": make, "gdrive_id": ["id-a", "id-b", "id-c"]},
        "Timm": {"model": make, "gdrive_id": None},
    }
    downloads: list[tuple[str, str]] = []
    modules = {
        "autoattack": {},
        "robustbench": {},
        "robustbench.model_zoo": {"model_dicts": {Named("cifar10"): {Named("Linf"): listing}}},
        "robustbench.model_zoo.enums": {"BenchmarkDataset": Named, "ThreatModel": Named},
        "robustbench.utils": {"load_model": load_model},
        "gdown": {},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return SimpleNamespace(make=make, downloads=downloads, gdown=sys.modules["gdown"])
