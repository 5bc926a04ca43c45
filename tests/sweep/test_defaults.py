"""A default stands in two places, the code's dataclasses and ``conf``: they are the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import pandas as pd
import pytest
import yaml

from defenses.methods import METHODS
from defenses.spec import DatasetSpec, Recipe, Threat, TrainingSpec, WeightPerturbation
from sweep import schema
from sweep.analysis.table import axis_names
from sweep.axes import AXES, OPTIONS
from sweep.compose import CONF
from sweep.convert import to_dataclass, to_plain
from sweep.dispatch import LocalOptions
from sweep.plan import plan
from sweep.setting import FROZEN_DEFAULTS, Evaluation, Measuring, Runtime, model_axes
from sweep.slurm.options import SlurmOptions
from sweep.tracking import TrackingSettings

MAIN: dict[str, Any] = yaml.safe_load((CONF / "config.yaml").read_text())
RUNTIME = [field.name for field in dataclasses.fields(Runtime)]
SECTIONS: dict[str, tuple[type[Any], Any]] = {
    "threat": (Threat, MAIN["threat"]),
    "training": (Recipe, MAIN["training"]),
    "awp": (WeightPerturbation, MAIN["awp"]),
    "dataset": (DatasetSpec, MAIN["dataset"]),
    "study": (schema.Study, MAIN["study"]),
    "runtime": (Runtime, {key: MAIN[key] for key in RUNTIME}),
    "measuring": (Measuring, MAIN["measuring"]),
    "evaluation": (Evaluation, yaml.safe_load((CONF / "evaluation/default.yaml").read_text())),
    "tracking": (TrackingSettings, yaml.safe_load((CONF / "tracking/wandb.yaml").read_text())),
    "local": (LocalOptions, yaml.safe_load((CONF / "hydra/launcher/local.yaml").read_text())),
    "slurm": (SlurmOptions, yaml.safe_load((CONF / "hydra/launcher/slurm.yaml").read_text())),
    **{
        f"methods.{name}": (method, MAIN["methods"].get(name, {}))
        for name, method in METHODS.items()
    },
}
# Fields that no user sets, because something else fills them in.
NOT_OPTIONS = {"measuring": {"names"}}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_option_is_listed_with_the_codes_default(section: str) -> None:
    cls, listed = SECTIONS[section]
    names = {field.name for field in dataclasses.fields(cls)} - NOT_OPTIONS.get(section, set())
    assert set(listed) == names
    assert to_plain(to_dataclass(cls, listed)) == to_plain(cls())


def test_every_top_level_key_has_a_kind_and_every_kind_a_key() -> None:
    groups = {"evaluation", "tracking"}  # of which the file lists only the choice
    listed = set(MAIN) - {"defaults", "hydra"} | groups
    assert listed == {field.name for field in dataclasses.fields(schema.Options)}


def test_every_row_has_the_axes_that_are_named(tmp_path: Any) -> None:
    (job,) = plan(["method=at", f"results_dir={tmp_path}"]).jobs
    assert tuple(model_axes(job.spec, "last")) == (*AXES, *OPTIONS)


def test_the_analysis_takes_every_key_of_the_configuration_for_an_axis() -> None:
    keys = [field.name for field in dataclasses.fields(schema.Options)]
    table = pd.DataFrame({**{key: [0.0, 0.1] for key in keys}, "clean_test": [0.8, 0.9]})
    assert set(axis_names(table)) == set(keys)


def test_frozen_defaults_name_fields_that_there_are() -> None:
    plain = {field.name: field for field in dataclasses.fields(TrainingSpec)}
    for key in FROZEN_DEFAULTS:
        first, _, rest = key.partition(".")
        assert first in plain
        if rest:
            assert rest in {field.name for field in dataclasses.fields(Recipe)}
