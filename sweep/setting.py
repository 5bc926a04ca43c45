"""One setting of a study as typed data: the training behind it, its checkpoint, and their ids."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import measures
from defenses import architectures, datasets, training
from defenses.methods import METHODS
from defenses.spec import (
    DatasetSpec,
    Recipe,
    Threat,
    TrainingSpec,
    WeightPerturbation,
    require,
)
from sweep import imported, schema
from sweep.axes import AXES
from sweep.convert import to_dataclass, to_plain, unknown
from sweep.schema import Checkpoint, Device
from sweep.tracking import TrackingSettings

T = TypeVar("T")
# Fields added to TrainingSpec or what it contains after the first release, with the value that
# every older training had. At that value they stay out of the hash, so that old ids hold.
# Literal values, frozen at the field's introduction: never "today's default".
FROZEN_DEFAULTS: dict[str, Any] = {
    "recipe.cuda_graphs": False,
    "recipe.fold_batch_norm": False,
    "imported": None,
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is evaluated of each model besides the study's measures.

    ``steps``: PGD steps of the robust accuracies. ``autoattack``: also AutoAttack (standard), on
    the first ``autoattack_images`` of train and test (None: all). ``masking_images``: how many
    test images are checked for gradient masking (0: none).
    """

    steps: int = 10
    batch_size: int = 500
    seed: int = 0
    autoattack: bool = False
    autoattack_images: int | None = None
    masking_images: int = 128

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"evaluation.steps={self.steps} must be at least 1")
        require(self.batch_size >= 1, f"evaluation.batch_size={self.batch_size} must be positive")
        require(
            self.autoattack_images is None or self.autoattack_images >= 1,
            f"evaluation.autoattack_images={self.autoattack_images} must be at least 1, or null",
        )
        require(
            self.masking_images >= 0,
            f"evaluation.masking_images={self.masking_images} must be at least 0",
        )


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """Which measures, on how many training images (None: all of them), with which parameters."""

    names: tuple[str, ...] = ()
    images: int | None = None
    batch_size: int = 500
    seed: int = 0
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        require(
            self.images is None or self.images >= 1,
            f"measuring.images={self.images} must be at least 1, or null for all",
        )
        require(self.batch_size >= 1, f"measuring.batch_size={self.batch_size} must be positive")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how it runs. ``torch_threads`` can change the last bits of a result on a CPU."""

    device: Device = "auto"
    torch_threads: int = 1
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        require(self.torch_threads >= 1, f"torch_threads={self.torch_threads} must be at least 1")
        require(
            self.checkpoint_minutes >= 0,
            f"checkpoint_minutes={self.checkpoint_minutes} must be at least 0",
        )


@dataclass(frozen=True)
class Images:
    """What a network has to take: square images of ``size`` pixels, and how many classes to tell.

    Only the estimate of what a training costs needs it before the images are there.
    """

    channels: int = 3
    size: int = 32
    classes: int = 10


@dataclass(frozen=True, kw_only=True)
class Job:
    """A frozen task: one training with everything that is to be known of its models.

    ``train_size`` counts the base training images; ``images`` says of which shape they are and of
    how many classes. ``axes`` maps a checkpoint to the axes of that model, as the study varies
    them.
    """

    study: str
    training_id: str
    spec: TrainingSpec
    train_size: int
    images: Images = field(default_factory=Images)
    checkpoints: tuple[Checkpoint, ...]
    axes: dict[str, dict[str, Any]]
    evaluation: Evaluation
    measuring: Measuring
    tracking: TrackingSettings
    runtime: Runtime

    def model_id(self, checkpoint: Checkpoint) -> str:
        return f"{self.training_id}-{checkpoint}"

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Job:
        return to_dataclass(cls, data)


def training_spec(config: Mapping[str, Any]) -> TrainingSpec:
    """The training that a composed configuration describes.

    Raises:
        ValueError: a name that does not exist or a value out of range, with the valid ones.
    """
    schema.check(config)
    if config["imported"] is not None:
        return imported.specification(config)
    method, architecture = str(config["method"]), str(config["architecture"])
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    architectures.architecture(architecture)
    defense = METHODS[method]
    given = config["methods"].get(method)
    parameters = to_dataclass(defense, {} if given is None else given, f"methods.{method}")
    dataset = _section(DatasetSpec, config, "dataset")
    if dataset.name not in datasets.DATASETS:
        raise unknown("dataset", dataset.name, datasets.DATASETS)
    awp = _section(WeightPerturbation, config, "awp")
    as_given = {field.name for field in fields(TrainingSpec)} & config.keys()
    return to_dataclass(
        TrainingSpec,
        {
            **{key: config[key] for key in as_given},
            "method_parameters": to_plain(parameters),
            "steps": config["steps"] if defense.needs_inner_maximisation else None,
            "weight_perturbation": awp if config["optimizer"] == "awp" else None,
            "dataset": dataset,
            "threat": _section(Threat, config, "threat"),
            "recipe": _section(Recipe, config, "training"),
        },
    )


def _section(cls: type[T], config: Mapping[str, Any], key: str) -> T:
    """One part of a configuration, converted once for all settings that share it."""
    part = _converted(cls, key, json.dumps(config[key]))  # type: ignore[arg-type]
    assert isinstance(part, cls)
    return part


@functools.lru_cache(maxsize=4096)
def _converted(cls: type[Any], key: str, text: str) -> Any:
    return to_dataclass(cls, json.loads(text), key)


def model_axes(spec: TrainingSpec, checkpoint: Checkpoint) -> dict[str, Any]:
    """A row's axes: the eight of the grid and what else tells comparable models apart.

    The same for every study that contains the model. Of an imported model, the eight are null.
    """
    common = {
        "dataset": spec.dataset.name,
        "seed": spec.seed,
        "norm": spec.threat.norm,
        "eps": spec.threat.eps,
    }
    if spec.imported is not None:
        null = dict.fromkeys(AXES) | {"method": spec.method}
        return {**null, **common, "seed": None, "imported": spec.imported.name}
    eight = {axis: getattr(spec, axis) for axis in AXES if axis != "early_stopping"}
    eight["early_stopping"] = checkpoint == "best"
    return {**eight, **common}


def identity(spec: TrainingSpec, fingerprint: str) -> dict[str, Any]:
    """What is hashed: all that can affect the weights or what is measured on them, and no more.

    ``definition``s are raised by corrections that change results. Options that the other axes
    leave without effect are left out.
    """
    plain = to_plain(spec)
    plain["dataset"] = {"name": spec.dataset.name, "fingerprint": fingerprint}
    if spec.imported is not None:
        weights = {"name": spec.imported.name, "sha256": spec.imported.sha256}
        return {"imported": weights, "dataset": plain["dataset"], "threat": plain["threat"]}
    plain["definitions"] = {
        "method": METHODS[spec.method].definition,
        "architecture": architectures.architecture(spec.architecture).definition,
        "training": training.DEFINITION,
    }
    if spec.augmentation == "none":
        del plain["recipe"]["crop_padding"], plain["recipe"]["horizontal_flip"]
    if spec.steps != 1:
        del plain["recipe"]["single_step_size"]
    method = METHODS[spec.method]
    if not method.needs_inner_maximisation or method.attack_mode != "eval":
        del plain["recipe"]["fold_batch_norm"]
    if spec.recipe.schedule != "step":
        del plain["recipe"]["milestones"], plain["recipe"]["lr_decay"]
    for key, value in FROZEN_DEFAULTS.items():
        *parents, name = key.split(".")
        holder: Any = plain
        for parent in parents:
            holder = (holder or {}).get(parent)
        if holder is not None and name in holder and holder[name] == value:
            del holder[name]
    return dict(plain)


def select_measures(config: Mapping[str, Any]) -> Measuring:
    """``measures`` of a configuration: the name of a set or of a measure, or a list of such names.

    Raises:
        ValueError: an unknown name, or a parameter that the measure does not have.
    """
    names, key = config["measures"], "measures"
    options = dict(config["measuring"])
    if isinstance(names, str) and names in config["measure_sets"]:
        key = f"measure_sets.{names}"
        chosen = config["measure_sets"][names]
        require(isinstance(chosen, Mapping), f"{key}={chosen!r} must be a mapping")
        options |= chosen
        names = options.pop("names", names)
    if isinstance(names, str):
        names = (names,)
    elif names is None:
        names = ()
    require(
        isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names),
        f"{key}={names!r} must be the name of a set or of a measure, or a list of names",
    )
    for name in set(names) & set(config["measure_sets"]):
        raise ValueError(
            f"{key}: {name} is a set of this study with options of its own; give it alone"
        )
    wanted = []
    for name in itertools.chain.from_iterable(measures.SETS.get(n, (n,)) for n in names):
        file, function = measures.split_reference(name)
        # workers run elsewhere: a file is frozen with its absolute path
        wanted.append(name if file is None else measures.reference(file.absolute(), function))
    try:
        resolved = measures.resolve(wanted)
    except ValueError as error:
        raise ValueError(f"measures: {error}") from None
    names = tuple(dict.fromkeys(wanted))
    measuring = to_dataclass(Measuring, {**options, "names": names}, "measuring")
    known = {**measures.MEASURES, **resolved}
    for name, parameters in measuring.parameters.items():
        if name not in known:  # of measures that are not wanted now, they are kept for later
            raise unknown("measure in measuring.parameters", name, known)
        measures.merged_parameters(name, known[name], parameters)
    return measuring
