"""RobustBench's model zoo: fetched once, on purpose, where there is a network; then read offline.

The package ``robustbench`` (installed separately) knows the networks and where their weights are.
``prepare`` fetches them on the login node into RobustBench's own layout,
``<folder>/<dataset>/<threat>/<name>.pt``, so that files which are there already are used as they
are. Each file's SHA-256 is kept beside it: RobustBench publishes none, so it is that of the first
complete download. ``load`` never touches the network.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from defenses.files import sync_directory, write_atomically
from defenses.spec import Norm, Preprocessing, require, require_choice
from sweep.external import read_weights

Dataset = Literal["cifar10", "cifar100", "imagenet"]
DATASETS: tuple[Dataset, ...] = ("cifar10", "cifar100", "imagenet")
THREATS: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}
INSTALL = "the package robustbench is not installed here: pip install -e '.[zoo]'"


@dataclass(frozen=True)
class ZooModel:
    """A model of the zoo: its name there, its data set and the norm it was trained against."""

    name: str
    dataset: Dataset = "cifar10"
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        require_choice("dataset", self.dataset, DATASETS)
        require_choice("norm", self.norm, tuple(THREATS))

    @classmethod
    def parse(cls, label: str) -> ZooModel:
        """From ``dataset/threat/name``, as RobustBench names them. ``ValueError`` otherwise."""
        dataset, threat, name = (*label.split("/"), "", "", "")[:3]
        require(
            label.count("/") == 2 and threat in THREATS.values() and bool(name),
            f"imported={label!r} is no model of RobustBench's; write <dataset>/<threat>/<name>: "
            f"{', '.join(DATASETS)}; {', '.join(THREATS.values())}; a name as RobustBench lists it",
        )
        norm = next(norm for norm, value in THREATS.items() if value == threat)
        return cls(name, dataset, norm)  # type: ignore[arg-type] # checked there

    @property
    def label(self) -> str:
        return f"{self.dataset}/{THREATS[self.norm]}/{self.name}"


def files(model: ZooModel, folder: Path) -> list[Path]:
    """Where the model's weights belong: one file, or one for each member of an ensemble."""
    parts = _entry(model)["gdrive_id"]
    place = folder / model.dataset / THREATS[model.norm]
    if isinstance(parts, list):
        return [place / f"{model.name}.pt_m{index}.pt" for index in range(len(parts))]
    return [place / f"{model.name}.pt"]


def missing(models: list[ZooModel], folder: Path) -> list[Path]:
    """Files that ``prepare`` would have to fetch."""
    return [path for model in models for path in files(model, folder) if not path.is_file()]


def checksum(model: ZooModel, folder: Path) -> str:
    """SHA-256 of all files of a model together: of what is recorded, else of what is there.

    ``ValueError`` names a file that is missing, and the command that fetches it.
    """
    digests = []
    for path in files(model, folder):
        require(path.is_file(), missing_line(path))
        recorded = _checksum_file(path)
        digests.append(recorded.read_text().strip() if recorded.is_file() else sha256(path))
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def preprocessing(model: ZooModel) -> Preprocessing | None:
    """How the model wants ImageNet's photographs; None for images that are used as they are."""
    name: Preprocessing | None = _entry(model).get("preprocessing")
    return name


def prepare(model: ZooModel, folder: Path) -> list[Path]:
    """Fetch what is missing of a model and record checksums; returns the files.

    A download goes to ``<file>.part``, which a later call continues, and takes its name only
    once it can be read as weights: an error page of the server never becomes a model.
    ``ValueError`` in one line if it cannot be had.
    """
    gdown = _import("gdown")
    parts = _entry(model)["gdrive_id"]
    paths = files(model, folder)
    for path, drive_id in zip(paths, parts if isinstance(parts, list) else [parts], strict=True):
        if not path.is_file():
            _download(gdown, drive_id, path, model.label)
        if not _checksum_file(path).is_file():
            write_atomically(_checksum_file(path), f"{sha256(path)}\n".encode())
    return paths


def _download(gdown: Any, drive_id: str, path: Path, label: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with path.with_name(".lock").open("w") as lock:  # two must not download into one file
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.is_file():
            return
        try:
            gdown.download(id=drive_id, output=str(part), resume=True, quiet=True)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{label} could not be fetched: {reason}") from error
        require(part.is_file(), f"{label} could not be fetched: nothing arrived")
        try:
            read_weights(part)
        except ValueError:
            part.unlink()  # continuing it would not mend it
            raise
        part.replace(path)
        sync_directory(path.parent)


def load(model: ZooModel, folder: Path) -> nn.Module:
    """The model, in eval mode on the CPU, for images in [0, 1]; from files only.

    ``ValueError`` in one line for a model that RobustBench does not have, a missing file (with
    the command that fetches it) and a damaged one.
    """
    for path in files(model, folder):
        require(path.is_file(), missing_line(path))
        recorded = _checksum_file(path)
        require(
            not recorded.is_file() or recorded.read_text().strip() == sha256(path),
            f"{path} has changed since it was fetched (its SHA-256 is not that of "
            f"{recorded.name}); delete both and run `python -m sweep prepare` again",
        )
        read_weights(path)  # says in one line what RobustBench would say in a page
    utils = _import("robustbench.utils")
    try:
        network = utils.load_model(
            model.name, model_dir=folder, dataset=model.dataset, threat_model=THREATS[model.norm]
        )
    except (RuntimeError, KeyError, OSError) as error:
        first_line = str(error).splitlines()[0]
        raise ValueError(f"{model.label}: the weights do not fit: {first_line}") from error
    assert isinstance(network, nn.Module)
    return network.eval()


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def missing_line(path: Path) -> str:
    """What to say of a file that is not there."""
    return f"{path} is missing: `python -m sweep prepare`, with the run's options, fetches it"


def _checksum_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _entry(model: ZooModel) -> Mapping[str, Any]:
    listing = _listing(model)
    near = [name for name in listing if model.name.lower() in name.lower()] or list(listing)
    require(
        model.name in listing,
        f"RobustBench has no {model.label}; it has: {', '.join(near[:8]) or 'none of this kind'}"
        + (f" and {len(near) - 8} more" if len(near) > 8 else ""),
    )
    entry: Mapping[str, Any] = listing[model.name]
    require(
        bool(entry.get("gdrive_id")),
        f"{model.label} is not a file of RobustBench's own but comes from timm or torchvision; "
        "measure it through a factory of yours: python -m sweep measure package.module:function",
    )
    return entry


def _listing(model: ZooModel) -> Mapping[str, Any]:
    zoo = _import("robustbench.model_zoo").model_dicts
    enums = _import("robustbench.model_zoo.enums")
    threats = zoo[enums.BenchmarkDataset(model.dataset)]
    listing: Mapping[str, Any] = threats.get(enums.ThreatModel(THREATS[model.norm]), {})
    return listing


def _import(module: str) -> Any:
    """A module of the optional extra, or one line that says how to install it.

    RobustBench imports AutoAttack's reference code as ``autoattack``, but depends on the same
    code under its name on the package index, ``pyautoattack``. What it uses is deprecated in many
    places, of which users of this project need no warning.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            if "autoattack" not in sys.modules and importlib.util.find_spec("autoattack") is None:
                sys.modules["autoattack"] = importlib.import_module("pyautoattack")
            return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{INSTALL} ({error})") from error
