"""Which epoch is the best one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from defenses.datasets import Data
from defenses.selection import Scores, judge, selection_split
from defenses.spec import Recipe, Selection, TrainingSpec
from defenses.state import State


def state() -> State:
    return State.new(nn.Linear(2, 2), Recipe(), torch.device("cpu"))


def best_epoch(scores: list[Scores], first_epoch: int = 1) -> int:
    kept = state()
    for score in scores:
        with torch.no_grad():
            next(kept.model.parameters()).fill_(kept.epoch)
        kept.remember_if_best(score, first_epoch)
        kept.next_epoch()
    assert kept.best is not None
    assert (kept.best["weight"] == kept.best_epoch).all()
    return kept.best_epoch


def test_robust_methods_are_chosen_by_pgd_and_ties_go_to_the_later_epoch() -> None:
    pgd = [0.1, 0.4, 0.3, 0.4, 0.2]
    scores = [Scores(1 - value, value) for value in pgd]
    assert best_epoch(scores) == 4


def test_standard_training_is_chosen_by_clean_accuracy() -> None:
    assert best_epoch([Scores(0.5, None), Scores(0.9, None), Scores(0.8, None)]) == 2


def test_epochs_before_the_first_selectable_one_do_not_count() -> None:
    scores = [Scores(0.5, 0.9), Scores(0.5, 0.1), Scores(0.5, 0.2)]
    assert best_epoch(scores) == 1
    assert best_epoch(scores, first_epoch=2) == 3


def test_a_score_of_zero_can_be_the_best() -> None:
    assert best_epoch([Scores(0.1, 0.0), Scores(0.1, 0.0)]) == 2


def test_held_out_images_or_if_asked_test_images(digits: Data) -> None:
    assert selection_split(Selection(), digits) is digits.selection
    assert len(selection_split(Selection(size=40), digits)) == 40
    assert selection_split(Selection(split="test"), digits) is digits.test
    with pytest.raises(ValueError, match=r"selection\.size=151, but digits has 150"):
        selection_split(Selection(size=151), digits)


def test_judged_at_the_threat(
    small_model: nn.Module, digits: Data, make_spec: Callable[..., TrainingSpec]
) -> None:
    scores = judge(small_model, digits.selection, make_spec("at"), robust=True)
    assert scores.pgd is not None
    assert scores == judge(small_model, digits.selection, make_spec("at"), robust=True)
    assert judge(small_model, digits.selection, make_spec(), robust=False).pgd is None
