"""Which images a step sees: whole passes, the extra half, and the same plan every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from defenses.batches import labelled_per_batch, plan_epoch, steps_per_epoch
from defenses.datasets import Data, to_float
from defenses.spec import TrainingSpec

MakeSpec = Callable[..., TrainingSpec]


def test_an_epoch_passes_over_every_image(make_spec: MakeSpec, digits: Data) -> None:
    """600 images in batches of 64: nine and a half batches, the tenth topped up."""
    plan = plan_epoch(make_spec(), digits, "id", 1)
    assert plan.base.shape == (10, 64)
    assert torch.equal(plan.base.flatten()[:600].sort().values, torch.arange(600))


def test_epochs_and_trainings_differ_and_repeat(make_spec: MakeSpec, digits: Data) -> None:
    spec = make_spec(augmentation="crop_flip")
    first = plan_epoch(spec, digits, "id", 1).batch(3)
    again = plan_epoch(spec, digits, "id", 1).batch(3)
    assert torch.equal(first[0], again[0])
    for other in (plan_epoch(spec, digits, "id", 2), plan_epoch(spec, digits, "other", 1)):
        assert not torch.equal(first[0], other.batch(3)[0])


@pytest.mark.parametrize("batch_size", [32, 33])
def test_half_of_a_batch_is_extra_data(make_spec: MakeSpec, digits: Data, batch_size: int) -> None:
    spec = make_spec(extra_data=True, batch_size=batch_size)
    assert digits.extra is not None
    plan = plan_epoch(spec, digits, "id", 1)
    assert plan.extra is not None
    half = batch_size // 2
    assert labelled_per_batch(spec) == batch_size - half
    assert plan.extra.shape == (19, half)
    x, y = plan.batch(0)
    assert torch.equal(x[-half:], to_float(digits.extra.images[plan.extra[0]]))
    assert torch.equal(y[-half:], digits.extra.labels[plan.extra[0]])
    assert torch.equal(x[:-half], to_float(digits.train.images[plan.base[0]]))


def test_extra_data_does_not_change_the_number_of_steps(make_spec: MakeSpec) -> None:
    assert steps_per_epoch(make_spec(), 600) == steps_per_epoch(make_spec(extra_data=True), 600)


def test_small_data_get_the_minimum_of_steps(make_spec: MakeSpec, digits: Data) -> None:
    """The epoch goes on over new permutations: images differ in count by at most one."""
    spec = make_spec(batch_size=256, min_steps_per_epoch=8)
    plan = plan_epoch(spec, digits, "id", 1)
    assert plan.base.shape == (8, 256)
    counts = plan.base.flatten().bincount()
    assert int(counts.max() - counts.min()) == 1


def test_without_augmentation_the_images_are_as_they_are(make_spec: MakeSpec, digits: Data) -> None:
    plan = plan_epoch(make_spec(), digits, "id", 1)
    x, _ = plan.batch(1)
    assert torch.equal(x, digits.train.images[plan.base[1]].float() / 255)
    cropped = plan_epoch(make_spec(augmentation="crop_flip"), digits, "id", 1)
    assert torch.equal(cropped.base, plan.base)
    assert not torch.equal(cropped.batch(1)[0], x)


def test_more_images_than_there_are_can_be_asked_for(make_spec: MakeSpec, digits: Data) -> None:
    few = replace(digits, train=digits.train[:5])
    plan = plan_epoch(make_spec(batch_size=12), few, "id", 1)
    assert plan.base.shape == (1, 12)
    assert plan.base.max() < 5
