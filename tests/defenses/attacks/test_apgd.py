"""APGD against closed forms, its published schedule, and torchattacks' implementation."""

from __future__ import annotations

import copy

import pytest
import torch
import torchattacks
from torch import nn

from defenses.attacks import apgd, apgd_targeted
from defenses.attacks.apgd import windows
from defenses.attacks.dlr import dlr, likeliest_wrong, targeted_dlr

NORMS = {"linf": "Linf", "l2": "L2"}


def test_checkpoints_are_the_published_ones():
    after = [step + 1 for step, window in enumerate(windows(100)) if window is not None]
    assert after == [22, 41, 57, 70, 80, 87, 93, 99]  # section 3 of the paper, in percent


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_breaks_a_linear_model_exactly_where_the_boundary_is_within_eps(linear_case, norm):
    distance = linear_case.distance(norm)
    eps = float(distance.median()) + 1e-4
    x_adv = apgd(linear_case.model, linear_case.x, linear_case.y, eps=eps, norm=norm, steps=50)
    broken = linear_case.model(x_adv).argmax(dim=1) != linear_case.y
    sure = (distance - eps).abs() > 1e-3 * eps
    assert torch.equal(broken[sure], (distance < eps)[sure])
    assert 0 < int(broken.sum()) < len(broken)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_is_as_strong_as_torchattacks(victim, norm, loss):
    model, x, y, eps = victim.model, victim.x, victim.y, victim.strength(norm)
    ours, theirs = torch.ones_like(y).bool(), torch.ones_like(y).bool()
    for seed in range(2):  # one run varies by a point between seeds, what survives two by less
        x_adv = apgd(model, x, y, eps=eps, norm=norm, steps=12, loss=loss, seed=seed)
        victim.assert_inside(x_adv, norm)
        ours &= model(x_adv).argmax(dim=1) == y
        original = torchattacks.APGD(
            model, norm=NORMS[norm], eps=eps, steps=12, loss=loss, seed=seed
        )
        theirs &= model(original(x, y)).argmax(dim=1) == y
    assert 0 < ours.double().mean() < victim.accuracy(x) / 100
    assert 100 * (ours.double().mean() - theirs.double().mean()) <= victim.points(0.5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_targeted_is_as_strong_as_torchattacks(victim, norm):
    victim = victim.first(60)
    model, x, y, eps = victim.model, victim.x, victim.y, victim.strength(norm)
    x_adv = apgd_targeted(model, x, y, eps=eps, norm=norm, steps=10)
    original = torchattacks.APGDT(model, norm=NORMS[norm], eps=eps, steps=10, seed=0)
    victim.assert_inside(x_adv, norm)
    assert victim.accuracy(x_adv) <= victim.accuracy(original(x, y)) + victim.points(0.5)


def test_an_example_does_not_depend_on_its_batch(digits_victim):
    x, y, model = digits_victim.x[:60], digits_victim.y[:60], digits_victim.model
    together = apgd(model, x, y, eps=0.15, steps=10, restarts=2)
    numbers = torch.arange(60)
    apart = torch.cat(
        [
            apgd(model, x[part], y[part], eps=0.15, steps=10, restarts=2, indices=part)
            for part in (numbers[:7], numbers[7:11], numbers[11:])
        ]
    )
    assert torch.allclose(together, apart, atol=1e-4)
    other_seed = apgd(model, x, y, eps=0.15, steps=10, restarts=2, seed=1)
    assert not torch.allclose(together, other_seed, atol=1e-4)


def test_unbroken_examples_come_back_with_a_higher_loss_than_their_start(digits_victim):
    x, y, model = digits_victim.x[:100], digits_victim.y[:100], digits_victim.model
    x_adv = apgd(model, x, y, eps=0.02, steps=10)
    kept = model(x_adv).argmax(dim=1) == y
    loss = nn.CrossEntropyLoss(reduction="none")
    assert kept.any()
    assert (loss(model(x_adv), y) > loss(model(x), y))[kept].all()


def test_leaves_the_model_as_it_was(digits_victim):
    model = copy.deepcopy(digits_victim.model).train()
    model[1].eval()
    before = copy.deepcopy(model.state_dict())
    apgd(model, digits_victim.x[:8], digits_victim.y[:8], eps=0.1, steps=3)
    apgd_targeted(model, digits_victim.x[:8], digits_victim.y[:8], eps=0.1, steps=3)
    assert model.training
    assert not model[1].training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_dlr_is_what_the_paper_says():
    logits = torch.tensor([[3.0, 1.0, 0.5, -2.0], [0.0, 4.0, 1.0, 2.0]])
    y, target = torch.tensor([0, 2]), torch.tensor([1, 0])
    assert torch.allclose(dlr(logits, y), torch.tensor([-2 / 2.5, 3 / 3]))
    assert torch.allclose(
        targeted_dlr(logits, y, target), torch.tensor([-2 / (3 + 0.75), -1 / (4 - 0.5)])
    )
    assert torch.allclose(dlr(1000 * logits, y), dlr(logits, y))


def test_targets_are_the_likeliest_wrong_classes():
    logits = torch.tensor([[3.0, 1.0, 0.5, -2.0], [0.0, 4.0, 1.0, 2.0]])
    y = torch.tensor([0, 3])
    assert likeliest_wrong(logits, y, 2).tolist() == [[1, 2], [1, 2]]
    assert likeliest_wrong(logits, y, 9).shape == (2, 3)


def test_errors_name_the_choices(linear_case):
    x, y, model = linear_case.x, linear_case.y, linear_case.model
    with pytest.raises(ValueError, match=r"dlr needs at least 3 classes.*loss=margin"):
        apgd(model, x, y, eps=0.1, loss="dlr")
    with pytest.raises(ValueError, match="choose one of: dlr, margin"):
        apgd_targeted(model, x, y, eps=0.1, loss="ce")
    with pytest.raises(ValueError, match="linf, l2"):
        apgd(model, x, y, eps=0.1, norm="l1")
    with pytest.raises(ValueError, match="indices has shape"):
        apgd(model, x, y, eps=0.1, indices=torch.arange(3))
