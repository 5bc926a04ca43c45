"""The top-level keys of the configuration and the kind of value each has.

What is inside a section is checked where it becomes a dataclass of its own; here it is only made
sure that nobody finds a number where a section, a name or a list should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from defenses.spec import Augmentation, Optimizer, TrainingSpec
from sweep.convert import to_dataclass

Section = dict[str, Any]
Resume = Literal["all", "failed", "missing"]
Device = Literal["auto", "cpu", "cuda"]
Checkpoint = Literal["best", "last"]

# Keys that decide which models there are. All others say what is done with a model, or where:
# no study can vary them, because a study's table has one value of a model in each column.
OF_THE_MODEL = frozenset(field.name for field in fields(TrainingSpec)) | {
    "early_stopping",
    "training",
    "methods",
    "awp",
    "zoo",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """One field for each top-level key of ``conf/config.yaml``."""

    architecture: Any  # names: sweep.setting.training_spec
    method: Any
    steps: int | None
    optimizer: Optimizer
    batch_size: int
    augmentation: Augmentation
    extra_data: bool
    early_stopping: bool
    seed: int
    threat: Section
    training: Section
    methods: Section
    awp: Section
    dataset: Section
    imported: str | None
    zoo: Section
    study: Section | None
    evaluation: Section
    tracking: Section
    measures: Any  # a name or a list of them: sweep.setting.select_measures
    measuring: Section
    measure_sets: Section
    results_dir: str | None
    resume: Resume
    device: Device
    torch_threads: int
    checkpoint_minutes: float
    checkpoints: tuple[Checkpoint, ...] | None


@dataclass(frozen=True, kw_only=True)
class Study:
    """The section ``study``. ``sample``: None: all settings; else so many, balanced."""

    name: str | None = None
    axes: Section = field(default_factory=dict)
    sample: int | None = None


def study(config: Mapping[str, Any]) -> Study:
    """The section ``study`` of a configuration; ``ValueError`` if something in it is wrong."""
    given = {key: value for key, value in (config["study"] or {}).items() if value is not None}
    return to_dataclass(Study, given, "study")


def check(config: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for a top-level key that is unknown, missing or of the wrong kind."""
    to_dataclass(Options, config)
