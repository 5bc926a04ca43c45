"""Which images a training step sees: planned for a whole epoch, from counters alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from defenses.augmentation import Crops, crop_and_flip, random_crops
from defenses.datasets import Data, to_float
from defenses.randomness import generator
from defenses.spec import TrainingSpec


def steps_per_epoch(spec: TrainingSpec, train_size: int) -> int:
    """Batches in an epoch: enough for ``train_size`` images, and at least the recipe's minimum.

    Extra data does not change it (as in MAIR): with half of every batch from elsewhere, an epoch
    then passes over half of the labelled images.
    """
    return max(-(-train_size // spec.batch_size), spec.recipe.min_steps_per_epoch)


def labelled_per_batch(spec: TrainingSpec) -> int:
    """Images of the base training set in a batch."""
    return spec.batch_size - (spec.batch_size // 2 if spec.extra_data else 0)


@dataclass(frozen=True)
class EpochPlan:
    """The images and crops of every step of one epoch, on the data's device.

    ``base`` ``(steps, labelled)`` and ``extra`` ``(steps, rest)`` are indices; ``crops`` are
    ``(steps, batch)`` each, None without augmentation.
    """

    data: Data
    base: Tensor
    extra: Tensor | None
    crops: Crops | None
    padding: int

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images in [0, 1] ``(batch, C, H, W)`` and labels ``(batch,)`` of step ``step``."""
        images = self.data.train.images[self.base[step]]
        labels = self.data.train.labels[self.base[step]]
        if self.extra is not None:
            assert self.data.extra is not None
            images = torch.cat([images, self.data.extra.images[self.extra[step]]])
            labels = torch.cat([labels, self.data.extra.labels[self.extra[step]]])
        if self.crops is not None:
            crops = Crops(*(part[step] for part in self.crops))
            images = crop_and_flip(images, crops, self.padding)
        return to_float(images), labels


def plan_epoch(spec: TrainingSpec, data: Data, training_id: str, epoch: int) -> EpochPlan:
    """The plan of epoch ``epoch`` (from 1), the same whenever and wherever it is made.

    Drawn on the CPU and moved once, so that the order of images does not depend on the device
    and no step waits for a transfer.
    """
    steps = steps_per_epoch(spec, len(data.train))
    device = data.train.images.device

    def indices(count: int, purpose: str, per_batch: int) -> Tensor:
        stream = generator(training_id, purpose, epoch)
        return _passes(count, steps * per_batch, stream).view(steps, per_batch).to(device)

    labelled = labelled_per_batch(spec)
    extra = None
    if spec.extra_data:
        assert data.extra is not None
        extra = indices(len(data.extra), "extra batches", spec.batch_size - labelled)
    crops = None
    if spec.augmentation == "crop_flip":
        drawn = random_crops(
            steps * spec.batch_size,
            spec.recipe.crop_padding,
            flip=spec.recipe.horizontal_flip,
            generator=generator(training_id, "augmentation", epoch),
        )
        crops = Crops(*(part.view(steps, spec.batch_size).to(device) for part in drawn))
    return EpochPlan(
        data=data,
        base=indices(len(data.train), "batches", labelled),
        extra=extra,
        crops=crops,
        padding=spec.recipe.crop_padding,
    )


def _passes(count: int, length: int, stream: torch.Generator) -> Tensor:
    """``length`` indices below ``count``: one random permutation after another.

    Every batch is therefore full; the last one of an epoch is topped up from a new permutation.
    """
    passes = [torch.randperm(count, generator=stream) for _ in range(-(-length // count))]
    return torch.cat(passes)[:length]
