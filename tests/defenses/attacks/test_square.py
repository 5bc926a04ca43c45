"""Square: its schedule, its bumps, that it asks for no gradient, and torchattacks."""

from __future__ import annotations

import pytest
import torch
import torchattacks
from torch import nn

from defenses.attacks import square
from defenses.attacks.square import _upright_bump, covered

NORMS = {"linf": "Linf", "l2": "L2"}


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, gradient):
        raise AssertionError("a gradient was asked for")


class Counting(nn.Module):
    """Counts the images it is asked about, and has no gradient."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.images = 0

    def forward(self, x):
        self.images += len(x)
        return self.model(NoGradient.apply(x))


def test_windows_shrink_as_published():
    # Table of the paper's code: p halves after 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000.
    assert [covered(q) / covered(0) for q in (10, 11, 50, 51, 201, 501)] == [
        1, 1 / 2, 1 / 2, 1 / 4, 1 / 8, 1 / 16,
    ]  # fmt: skip
    assert covered(0) == 0.8
    assert covered(9999) == 0.8 / 512


def test_bump_is_two_opposite_pyramids():
    bump = _upright_bump(5)
    assert bump.norm() == pytest.approx(1)
    assert (bump[:2] > 0).all()
    assert (bump[2:] < 0).all()
    # The lower pyramid: 1 + 1/4 + 1/9 levels, highest in the middle.
    lower = -bump[2:] / -bump[3, 2]
    levels = torch.tensor([1 + 1 / 4 + 1 / 9, 1 / 4 + 1 / 9, 1 / 9]) / (1 + 1 / 4 + 1 / 9)
    distance = torch.tensor([[2, 1, 1, 1, 2], [2, 1, 0, 1, 2], [2, 1, 1, 1, 2]])
    assert torch.allclose(lower, levels[distance])


def survivors_of_three(victim, attack):
    """Share that withstands three seeds: it varies less than one run, theirs by two points."""
    left = torch.ones_like(victim.y).bool()
    for seed in range(3):
        x_adv = attack(seed)
        left &= victim.model(x_adv).argmax(dim=1) == victim.y
    return 100 * float(left.double().mean())


def ours(victim, norm):
    def attack(seed):
        x_adv = square(
            victim.model, victim.x, victim.y,
            eps=victim.strength(norm), norm=norm, queries=60, seed=seed,
        )  # fmt: skip
        victim.assert_inside(x_adv, norm)
        return x_adv

    return survivors_of_three(victim, attack)


def test_is_as_strong_as_torchattacks(victim):
    """In l-infinity only: their l2 version measures the windows' budget over all channels."""

    def theirs(seed):
        original = torchattacks.Square(
            victim.model, norm="Linf", eps=victim.eps, n_queries=60, seed=seed
        )
        return original(victim.x, victim.y)

    accuracy = ours(victim, "linf")
    assert accuracy < victim.accuracy(victim.x)
    assert accuracy <= survivors_of_three(victim, theirs) + victim.points(0.5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_is_as_strong_as_the_authors_code(victim, norm):
    reference = pytest.importorskip("pyautoattack.square", exc_type=ImportError)

    def theirs(seed):
        original = reference.SquareAttack(
            victim.model, norm=NORMS[norm], eps=victim.strength(norm),
            n_queries=60, seed=seed, device="cpu",
        )  # fmt: skip
        return original.perturb(victim.x, victim.y)

    accuracy = ours(victim, norm)
    assert accuracy < victim.accuracy(victim.x)
    assert accuracy <= survivors_of_three(victim, theirs) + victim.points(0.5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_asks_for_few_queries_and_no_gradient(digits_victim, norm):
    victim = digits_victim.first(20)
    counting = Counting(victim.model)
    x_adv = square(counting, victim.x, victim.y, eps=0.3, norm=norm, queries=30)
    assert counting.images <= 20 * (1 + 1 + 30)
    assert not x_adv.requires_grad


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_example_does_not_depend_on_its_batch(digits_victim, norm):
    model, x, y = digits_victim.model, digits_victim.x[:40], digits_victim.y[:40]
    together = square(model, x, y, eps=0.3, norm=norm, queries=40)
    numbers = torch.arange(40)
    apart = [
        square(model, x[part], y[part], eps=0.3, norm=norm, queries=40, indices=part)
        for part in (numbers[:3], numbers[3:30], numbers[30:])
    ]
    assert torch.allclose(together, torch.cat(apart), atol=1e-5)


def test_a_larger_budget_never_hurts(digits_victim):
    victim = digits_victim.first(100)
    few, many = (
        square(victim.model, victim.x, victim.y, eps=0.15, queries=queries, rescale=False)
        for queries in (20, 120)
    )
    assert victim.accuracy(many) <= victim.accuracy(few)


def test_errors_name_the_choices(linear_case):
    with pytest.raises(ValueError, match="linf, l2"):
        square(linear_case.model, linear_case.x, linear_case.y, eps=0.1, norm="l1")
    with pytest.raises(ValueError, match="queries=0"):
        square(linear_case.model, linear_case.x, linear_case.y, eps=0.1, queries=0)
