"""What a training costs, counted before it runs."""

from __future__ import annotations

import functools

from defenses import architectures
from defenses.batches import steps_per_epoch
from defenses.methods import METHODS
from defenses.spec import Recipe
from sweep.setting import Images, Job

ATTACK_STEP = 2  # forward passes' worth: one forward, and one backward to the image alone
STEP_OVERHEAD_IMAGES = 16  # a step costs as if it had so many more images, however small it is
# Operations a second that one A100 is assumed to sustain where nothing has been measured: a third
# of the peak of its tensor cores (156e12 in TF32, 312e12 in half precision), and 70 % of the
# 19.5e12 of its ordinary ones.
ASSUMED_FLOPS = {"fp32": 14e12, "TF32": 50e12, "bf16": 100e12, "fp16": 100e12}


def passes(job: Job) -> tuple[float, float]:
    """Cost of one training step per image, in forward passes: (of the loss, of the inner attack).

    AWP differentiates the loss twice, and in its global form also attacks twice, except in the
    epochs of its warm-up; a mean over all epochs.
    """
    spec, awp = job.spec, job.spec.weight_perturbation
    method = METHODS[spec.method]
    loss, attack = method.loss_passes, method.craft_passes + ATTACK_STEP * (spec.steps or 0)
    if awp is None:
        return loss, attack
    perturbed = 1 - min(awp.warmup_epochs / spec.recipe.epochs, 1)
    return loss * (1 + perturbed), attack * (1 + perturbed * (awp.form == "global"))


def steps(job: Job) -> int:
    """Optimiser steps of the whole training."""
    return steps_per_epoch(job.spec, job.train_size) * job.spec.recipe.epochs


def arithmetic(recipe: Recipe) -> tuple[str, str]:
    """The kinds of arithmetic, keys of ``ASSUMED_FLOPS``, of (the loss, the inner attack)."""
    full = "TF32" if recipe.tf32 else "fp32"
    loss, attack = (
        full if kind == "fp32" else kind for kind in (recipe.precision, recipe.attack_precision)
    )
    return loss, attack


def gpu_seconds(job: Job) -> float:
    """Seconds of all training steps on one A100, from counted operations and its assumed speed."""
    forward = steps(job) * job.spec.batch_size * _forward_flops(job.spec.architecture, job.images)
    kinds = arithmetic(job.spec.recipe)
    return sum(
        forward * p / ASSUMED_FLOPS[kind] for p, kind in zip(passes(job), kinds, strict=True)
    )


def relative_cost(job: Job, *, measures_only: bool = False) -> float:
    """Cost of a job relative to others of the same study.

    ``measures_only``: of one whose training is done, by what PGD on the training images costs.
    """
    if job.spec.imported is not None:
        return float(job.train_size)  # nothing is known of the network before it is loaded
    if measures_only:
        passes_each = 1 + ATTACK_STEP * job.evaluation.steps
        images = job.train_size * len(job.checkpoints) * passes_each
        return images * _forward_flops(job.spec.architecture, job.images)
    images = steps(job) * (job.spec.batch_size + STEP_OVERHEAD_IMAGES)
    return images * sum(passes(job)) * _forward_flops(job.spec.architecture, job.images)


@functools.cache
def _forward_flops(name: str, images: Images) -> float:
    return float(architectures.flops(name, images.classes, images.channels, images.size))
