"""Accuracies against a plain count, independence of batches, and the gap."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from defenses.attacks import fgsm, pgd
from defenses.datasets import Data, to_float
from defenses.evaluation import evaluate, random_starts
from defenses.spec import Threat

THREAT = Threat(eps=0.15, step_size=0.04)


@pytest.fixture(scope="module")
def few(digits: Data) -> Data:
    return replace(digits, train=digits.train[:150], test=digits.test[:90])


@pytest.fixture(scope="module")
def model(digits: Data) -> nn.Module:
    """A linear classifier trained for a moment: right on most images, robust on some."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        logits = model(to_float(digits.train.images))
        nn.functional.cross_entropy(logits, digits.train.labels).backward()
        optimizer.step()
    return model


def test_equals_a_plain_count(model: nn.Module, few: Data) -> None:
    found = evaluate(model, few, THREAT, steps=10, batch_size=32, seed=3)
    x, y = to_float(few.test.images), few.test.labels
    start = random_starts(x, THREAT, 3, "evaluation/test", 0)
    attacked = {
        "clean_test": x,
        "fgsm_test": fgsm(model, x, y, eps=THREAT.eps),
        "pgd_test": pgd(
            model, x, y, eps=THREAT.eps, step_size=THREAT.step_size, steps=10, start=start
        ),
    }
    for name, images in attacked.items():
        correct = model(images).argmax(1) == y
        assert found.correct[name].tolist() == correct.tolist()
        assert found.metrics[name] == correct.sum().item() / 90
    m = found.metrics
    assert m["clean_test"] > m["fgsm_test"] > 0
    assert m["pgd_test"] == pytest.approx(
        m["fgsm_test"], abs=0.03
    )  # nearly linear: one step is enough
    assert set(found.correct) == {*attacked, "clean_train", "pgd_train"}


def test_gaps_come_from_counts(model: nn.Module, few: Data) -> None:
    found = evaluate(model, few, THREAT, steps=2)
    counts = {name: int(correct.sum()) for name, correct in found.correct.items()}
    gap = counts["pgd_train"] / 150 - counts["pgd_test"] / 90
    assert found.metrics["gap"] == round(gap, 9)
    clean_gap = counts["clean_train"] / 150 - counts["clean_test"] / 90
    assert found.metrics["clean_gap"] == round(clean_gap, 9)


def test_batch_size_does_not_matter_but_the_seed_does(model: nn.Module, few: Data) -> None:
    first = evaluate(model, few, THREAT, steps=3, batch_size=512)
    other = evaluate(model, few, THREAT, steps=3, batch_size=37)
    for name, correct in first.correct.items():
        assert (correct == other.correct[name]).all()
    assert first.metrics == pytest.approx(other.metrics)
    reseeded = evaluate(model, few, THREAT, steps=3, seed=1)
    assert (reseeded.correct["pgd_train"] != first.correct["pgd_train"]).any()
    assert (reseeded.correct["clean_test"] == first.correct["clean_test"]).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_depend_on_the_example_alone(norm: str, few: Data) -> None:
    threat = replace(THREAT, norm=norm)
    x = to_float(few.train.images)
    whole = random_starts(x, threat, 0, "p", 0)
    parts = [random_starts(x[a:b], threat, 0, "p", a) for a, b in ((0, 1), (1, 70), (70, 150))]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(whole, x)


def test_the_model_is_left_as_it_was(small_model: nn.Module, few: Data) -> None:
    state = {key: value.clone() for key, value in small_model.state_dict().items()}
    evaluate(small_model, few, THREAT, steps=1)
    assert small_model.training
    assert all(p.requires_grad and p.grad is None for p in small_model.parameters())
    assert all(torch.equal(v, state[k]) for k, v in small_model.state_dict().items())


def test_without_a_ball_pgd_is_clean(model: nn.Module, few: Data) -> None:
    found = evaluate(model, few, Threat(eps=0.0, step_size=0.1), steps=2)
    for part in ("train", "test"):
        assert (found.correct[f"pgd_{part}"] == found.correct[f"clean_{part}"]).all()
