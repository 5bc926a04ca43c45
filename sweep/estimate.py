"""What a training costs, counted before it runs."""

from __future__ import annotations

import functools
import math

from defenses import architectures, datasets
from sweep.setting import Job

BACKWARD = 2.0  # a backward pass costs about two forward passes


def training_flops(job: Job) -> float:
    """Floating-point operations of a whole training, from the architecture's counted FLOPs.

    Per image and step: a forward and backward pass for the update; for each step of the inner
    maximisation one more (gradient with respect to the image); AWP adds one for the weights'
    ascent. TRADES and MART also pass the clean image.
    """
    spec = job.spec
    info = datasets.describe(spec.dataset)
    passes = 1 + (spec.steps or 0) + (spec.optimizer == "awp")
    clean = 1 if spec.method not in ("standard", "at") else 0
    per_epoch = max(math.ceil(info.train_size / spec.batch_size), spec.recipe.min_steps_per_epoch)
    images = per_epoch * spec.batch_size * spec.recipe.epochs
    forward = _flops(spec.architecture, info.num_classes, info.channels, info.image_size)
    return float(images * forward * (1 + BACKWARD) * (passes + clean))


@functools.cache
def _flops(name: str, num_classes: int, channels: int, image_size: int) -> int:
    return architectures.flops(
        name, num_classes=num_classes, in_channels=channels, image_size=image_size
    )


def relative_cost(job: Job) -> float:
    """Cost of a job compared to others of the same study: small batches cost by their number."""
    info = datasets.describe(job.spec.dataset)
    small = 1 + 16 / job.spec.batch_size if info.image_size <= 32 else 1.0
    return training_flops(job) * small
