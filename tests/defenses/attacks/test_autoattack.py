"""AutoAttack: its place among the attacks, torchattacks' at equal effort, few classes."""

from __future__ import annotations

import pytest
import torch
import torchattacks
from torch import nn

from defenses.attacks import fgsm, pgd
from defenses.attacks.autoattack import STANDARD, Effort, autoattack, robust
from defenses.spec import Threat

NORMS = {"linf": "Linf", "l2": "L2"}
EFFORT = Effort(steps=10, targets=9, queries=50)
LITTLE = Effort(steps=5, targets=3, queries=20)


def original(model, norm, eps, effort):
    """torchattacks' AutoAttack with our effort (by itself it makes 10 steps, not 100)."""
    common = {"norm": NORMS[norm], "eps": eps, "seed": 0}
    return torchattacks.MultiAttack(
        [
            torchattacks.APGD(model, steps=effort.steps, **common),
            torchattacks.APGDT(model, steps=effort.steps, n_classes=10, **common),
            torchattacks.FAB(
                model, steps=effort.steps, multi_targeted=True, n_classes=10, **common
            ),
            torchattacks.Square(model, n_queries=effort.queries, resc_schedule=False, **common),
        ]
    )


def test_the_standard_effort_is_the_published_one():
    assert (STANDARD.steps, STANDARD.targets, STANDARD.queries) == (100, 9, 5000)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_order_ball_and_torchattacks(victim, norm):
    victim = victim.first(40)
    model, x, y, eps = victim.model, victim.x, victim.y, victim.strength(norm)
    start = torch.Generator().manual_seed(0)
    x_pgd = pgd(model, x, y, eps=eps, norm=norm, step_size=eps / 4, steps=10, generator=start)
    x_aa = autoattack(model, x, y, eps=eps, norm=norm, effort=EFFORT)
    victim.assert_inside(x_aa, norm)
    strengths = [x, fgsm(model, x, y, eps=eps, norm=norm), x_pgd, x_aa]
    accuracies = [victim.accuracy(z) for z in strengths]
    assert accuracies == sorted(accuracies, reverse=True)
    assert 0 < accuracies[-1] < accuracies[0]

    theirs = victim.accuracy(original(model, norm, eps, EFFORT)(x, y))
    assert accuracies[-1] == pytest.approx(theirs, abs=victim.points(0.3))


def test_robust_is_what_autoattack_leaves_right_whatever_the_batch(digits_victim):
    victim = digits_victim.first(30)
    threat = Threat(eps=0.15, step_size=0.04)
    together = robust(victim.model, victim.x, victim.y, threat=threat, effort=LITTLE)
    apart = robust(victim.model, victim.x, victim.y, threat=threat, effort=LITTLE, batch_size=7)
    assert torch.equal(together, apart)
    x_adv = autoattack(victim.model, victim.x, victim.y, eps=0.15, effort=LITTLE)
    assert torch.equal(together, victim.model(x_adv).argmax(dim=1) == victim.y)
    assert torch.equal(x_adv[together], victim.x[together])


@pytest.mark.parametrize("classes", [2, 3])
def test_fewer_classes_than_the_dlr_needs(digits_victim, classes):
    class Fewer(nn.Module):
        def forward(self, x):
            return digits_victim.model(x)[:, :classes]

    rows = digits_victim.y < classes
    x, y = digits_victim.x[rows][:20], digits_victim.y[rows][:20]
    model = Fewer()
    weak = robust(model, x, y, threat=Threat(eps=0.0), effort=LITTLE)
    strong = robust(model, x, y, threat=Threat(eps=0.6), effort=LITTLE)
    assert torch.equal(weak, model(x).argmax(dim=1) == y)
    assert int(strong.sum()) < int(weak.sum())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_linear_model_falls_exactly_within_eps(linear_case, norm):
    distance = linear_case.distance(norm)
    eps = float(distance.median()) + 1e-4
    left = robust(
        linear_case.model, linear_case.x, linear_case.y, threat=Threat(norm=norm, eps=eps)
    )
    sure = (distance - eps).abs() > 1e-3 * eps
    assert torch.equal(left[sure], (distance > eps)[sure])
