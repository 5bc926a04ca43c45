"""Jobs whose weights are not trained here but imported: the models of RobustBench's zoo.

Such a job is an ordinary one in everything else: the same rows, the same launchers, the same
resume. Its identity is the file, the images and the threat; the axes of the grid are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from defenses.datasets import Data
from defenses.spec import DatasetSpec, Imported, Recipe, Threat, TrainingSpec, require
from sweep import zoo
from sweep.convert import to_dataclass
from sweep.external import require_fit
from sweep.zoo import ZooModel

METHOD = "imported"  # what stands for the method where one is asked for


def specification(config: Mapping[str, Any]) -> TrainingSpec:
    """The job of ``imported=<dataset>/<threat>/<name>``.

    What ``dataset`` and ``threat`` leave null is filled in from ``zoo.<dataset>``: its data set,
    and the threat that its models are held against. ``ValueError`` for what is not known.
    """
    model = ZooModel.parse(config["imported"])
    require(
        not config["early_stopping"],
        "early_stopping=true chooses an epoch of a training; an imported model has only its file",
    )
    zoo_options = config["zoo"]
    folder = zoo_options.get("folder")
    require(folder is None or isinstance(folder, str), f"zoo.folder={folder!r} must be text")
    defaults = _section(zoo_options, "zoo", model.dataset)
    key = f"zoo.{model.dataset}"
    dataset = _filled(config["dataset"], _section(defaults, key, "dataset"))
    norm = {"norm": model.norm, **_section(defaults, key, model.norm)}
    threat = _filled(config["threat"], norm)
    return TrainingSpec(
        architecture=model.name,
        method=METHOD,
        steps=None,
        optimizer="sgd",
        batch_size=1,
        augmentation="none",
        extra_data=False,
        dataset=to_dataclass(DatasetSpec, dataset, "dataset"),
        threat=to_dataclass(Threat, threat, "threat"),
        recipe=Recipe(epochs=1),
        seed=0,
        imported=Imported(name=model.label, folder=folder),
    )


def _section(holder: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    """What ``holder``, which stands at ``key``, says under ``name``: empty if nothing."""
    section = holder.get(name)
    require(
        section is None or isinstance(section, Mapping),
        f"{key}.{name}={section!r} must be a mapping",
    )
    return section or {}


def _filled(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, **{k: v for k, v in defaults.items() if given.get(k) is None}}


def find(spec: TrainingSpec, folder: Path) -> tuple[TrainingSpec, str | None]:
    """The specification with what its files are, and what is missing of them, if anything.

    Ordinary trainings come back as they are. ``folder``: where files are if the specification
    does not say. ``ValueError`` for a model that RobustBench does not have.
    """
    if spec.imported is None:
        return spec, None
    model = ZooModel.parse(spec.imported.name)
    place = Path(spec.imported.folder).absolute() if spec.imported.folder else folder
    found = replace(spec.imported, folder=str(place))
    if spec.dataset.preprocessing is None and model.dataset == "imagenet":
        images = replace(spec.dataset, preprocessing=zoo.preprocessing(model))
        spec = replace(spec, dataset=images)
    missing = zoo.missing([model], place)
    if missing:
        return replace(spec, imported=found), zoo.missing_line(missing[0])
    found = replace(found, sha256=zoo.checksum(model, place))
    return replace(spec, imported=found), None


def load(imported: Imported, data: Data, device: torch.device) -> nn.Module:
    """The model on ``device``. ``ValueError`` if it is not the one planned or not for ``data``."""
    model = ZooModel.parse(imported.name)
    assert imported.folder is not None
    folder = Path(imported.folder)
    require(
        data.in_channels == 3,  # where a normalisation of three would turn grey into colour
        f"{model.label} does not take the grey images of {data.name}",
    )
    network = zoo.load(model, folder)
    require(
        zoo.checksum(model, folder) == imported.sha256,
        f"{model.label}: the files in {folder} are not those that this task was planned with; run "
        "the study's command again",
    )
    network = network.to(device)
    require_fit(network, data, model.label)
    return network
