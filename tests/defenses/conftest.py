"""Small things that many tests of the defenses train and attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defenses.architectures import build
from defenses.datasets import Data, load
from defenses.randomness import generator
from defenses.spec import (
    DatasetSpec,
    Recipe,
    Selection,
    Threat,
    TrainingSpec,
    WeightPerturbation,
)

DIGITS_THREAT = Threat(eps=0.15, step_size=0.04)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def digits(cache: Path) -> Data:
    return load(DatasetSpec(), extra_data=True, cache=cache)


@pytest.fixture
def small_model() -> nn.Module:
    """An untrained network in training mode whose batch norm has seen some images."""
    model = build("resnet_small", num_classes=10, in_channels=1, image_size=8)
    stream = generator("tests", "warm-up")
    for _ in range(3):
        model(torch.rand(32, 1, 8, 8, generator=stream))
    return model


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    stream = generator("tests", "batch")
    return torch.rand(12, 1, 8, 8, generator=stream), torch.randint(10, (12,), generator=stream)


def spec_of(
    method: str = "at", *, awp: WeightPerturbation | None = None, **changes: Any
) -> TrainingSpec:
    """A training of seconds on 8x8 digits; ``changes`` replace fields of the spec or its recipe."""
    recipe = Recipe(
        epochs=2, crop_padding=1, horizontal_flip=False, selection=Selection(size=40, steps=2)
    )
    spec = TrainingSpec(
        architecture="resnet_small",
        method=method,
        steps=None if method == "standard" else 2,
        optimizer="sgd" if awp is None else "awp",
        weight_perturbation=awp,
        batch_size=64,
        augmentation="none",
        extra_data=False,
        dataset=DatasetSpec(train_size=200),
        threat=DIGITS_THREAT,
        recipe=recipe,
        seed=0,
    )
    of_recipe = {key: changes.pop(key) for key in list(changes) if hasattr(recipe, key)}
    return replace(spec, recipe=replace(recipe, **of_recipe), **changes)


@pytest.fixture
def make_spec() -> Callable[..., TrainingSpec]:
    return spec_of
