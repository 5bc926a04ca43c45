"""The learning rate as a function of the position alone, so that there is nothing to store."""

from __future__ import annotations

import math

from defenses.spec import Recipe


def learning_rate(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """Learning rate of step ``step`` (from 0) of ``steps`` in epoch ``epoch`` (from 1).

    ``step``: multiplied by ``lr_decay`` once each milestone's share of the epochs is over.
    ``cosine``: from ``lr`` to 0 over all steps (Loshchilov & Hutter, ICLR 2017).
    """
    if recipe.schedule == "cosine":
        progress = ((epoch - 1) * steps + step) / (recipe.epochs * steps)
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if recipe.schedule == "step":
        passed = sum(epoch > round(milestone * recipe.epochs) for milestone in recipe.milestones)
        return recipe.lr * recipe.lr_decay**passed
    return recipe.lr
