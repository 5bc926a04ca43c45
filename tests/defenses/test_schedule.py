"""The learning rate against PyTorch's schedulers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from defenses.schedule import learning_rate
from defenses.spec import Recipe


def theirs(recipe: Recipe, scheduler: Any, count: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule = scheduler(optimizer)
    rates = []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_steps_at_epochs_100_and_150_of_200() -> None:
    recipe = Recipe()
    ours = [learning_rate(recipe, epoch, 7, 391) for epoch in range(1, 201)]
    expected = theirs(
        recipe, lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [100, 150], gamma=0.1), 200
    )
    assert ours == pytest.approx(expected)


def test_cosine_over_all_steps() -> None:
    recipe = Recipe(schedule="cosine", epochs=3)
    ours = [learning_rate(recipe, epoch, step, 5) for epoch in (1, 2, 3) for step in range(5)]
    expected = theirs(recipe, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 15), 15)
    assert ours == pytest.approx(expected)


def test_constant() -> None:
    recipe = Recipe(schedule="constant", lr=0.05)
    assert {learning_rate(recipe, epoch, 0, 9) for epoch in range(1, 201)} == {0.05}
