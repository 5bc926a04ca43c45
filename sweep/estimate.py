"""What a training costs, counted before it runs."""

from __future__ import annotations

import functools
import math

from defenses import architectures
from sweep.setting import Job

BACKWARD = 2.0  # a backward pass costs about two forward passes
STEP_OVERHEAD_IMAGES = 16  # a step costs as if it had so many more images, however small it is


def passes(job: Job) -> int:
    """Forward-and-backward passes of one training step, per image.

    One for the update; one for each step of the inner maximisation (the gradient with respect to
    the image); one for the weights' ascent of AWP; one for the clean image that TRADES and MART
    also learn from.
    """
    spec = job.spec
    clean = spec.method not in ("standard", "at")
    return 1 + (spec.steps or 0) + (spec.optimizer == "awp") + clean


def steps(job: Job) -> int:
    """Optimiser steps of the whole training."""
    spec = job.spec
    per_epoch = math.ceil(job.train_size / spec.batch_size)
    return max(per_epoch, spec.recipe.min_steps_per_epoch) * spec.recipe.epochs


def training_flops(job: Job) -> float:
    """Floating-point operations of the whole training, from the architecture's counted ones."""
    forward = _forward_flops(job.spec.architecture)
    return steps(job) * job.spec.batch_size * passes(job) * (1 + BACKWARD) * forward


def relative_cost(job: Job) -> float:
    """Cost of a job relative to others of the same study."""
    if job.spec.imported is not None:
        return float(job.train_size)  # nothing is known of the network before it is loaded
    images = steps(job) * (job.spec.batch_size + STEP_OVERHEAD_IMAGES)
    return images * passes(job) * _forward_flops(job.spec.architecture)


@functools.cache
def _forward_flops(name: str) -> float:
    return float(architectures.flops(name, num_classes=10, in_channels=3, image_size=32))
