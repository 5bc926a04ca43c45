"""FAB and its projection against closed forms, SciPy's solvers and torchattacks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchattacks
from scipy.optimize import linprog, minimize

from defenses.attacks import fab
from defenses.attacks.hyperplane import distances, to_hyperplane

NORMS = {"linf": "Linf", "l2": "L2"}


def solve(x, w, c, norm):
    """The size of the smallest move onto the plane within the box, by a general solver."""
    n = len(x)
    if norm == "linf":  # minimise t subject to |delta_j| <= t
        bound = np.vstack(
            [np.c_[np.eye(n), -np.ones(n)], np.c_[-np.eye(n), -np.ones(n)]],
        )
        answer = linprog(
            np.r_[np.zeros(n), 1],
            A_ub=bound,
            b_ub=np.zeros(2 * n),
            A_eq=np.r_[w, 0][None],
            b_eq=[-c],
            bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
        )
        return answer.fun if answer.success else None
    answer = minimize(
        lambda d: d @ d,
        np.zeros(n),
        jac=lambda d: 2 * d,
        bounds=list(zip(-x, 1 - x, strict=True)),
        constraints={"type": "eq", "fun": lambda d: w @ d + c, "jac": lambda d: w},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    return float(np.sqrt(answer.fun)) if answer.success else None


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_is_the_smallest_move(norm):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(40, 7, generator=generator)
    w = torch.randn(40, 7, generator=generator)
    w[:10, :3] = 0
    most = torch.where(w > 0, w * x, w * (x - 1)).sum(dim=1)  # largest decrease of w·x in the box
    c = most * torch.linspace(0.02, 0.98, 40)
    delta = to_hyperplane(x, w, c, norm)
    assert torch.allclose((w * delta).sum(dim=1), -c, atol=1e-5)
    assert (x + delta).min() >= -1e-6
    assert (x + delta).max() <= 1 + 1e-6
    checked = 0
    for row in range(40):
        best = solve(*(v[row].double().numpy() for v in (x, w)), float(c[row]), norm)
        if best is not None:
            checked += 1
            assert float(distances(delta[row : row + 1], norm)) == pytest.approx(best, abs=1e-4)
    assert checked >= 35


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_goes_to_the_corner_where_the_box_does_not_reach_the_plane(norm):
    x = torch.tensor([[0.2, 0.7, 0.5]])
    w = torch.tensor([[1.0, -2.0, 0.0]])
    for sign, corner in ((1, [0.0, 1.0, 0.5]), (-1, [1.0, 0.0, 0.5])):
        delta = to_hyperplane(x, w, torch.tensor([sign * 100.0]), norm)
        assert torch.allclose(x + delta, torch.tensor([corner]))
    assert torch.equal(to_hyperplane(x, 0 * w, torch.tensor([1.0]), norm), 0 * x)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targets", [None, 9])
def test_finds_a_linear_model_s_distances(linear_case, norm, targets):
    x, y = linear_case.x, linear_case.y
    x_adv = fab(linear_case.model, x, y, norm=norm, steps=30, targets=targets)
    found = distances(x_adv - x, norm)
    assert (linear_case.model(x_adv).argmax(dim=1) != y).all()
    assert (found >= linear_case.distance(norm) * (1 - 1e-4)).all()
    assert (found <= linear_case.distance(norm) * 1.06 + 1e-5).all()  # the overshoot


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targets", [None, 9])
def test_is_as_strong_as_torchattacks(victim, norm, targets):
    victim = victim.first(20)
    model, x, y, eps = victim.model, victim.x, victim.y, victim.strength(norm)
    x_adv = fab(model, x, y, eps=eps, norm=norm, steps=10, targets=targets)
    victim.assert_inside(x_adv, norm)
    original = torchattacks.FAB(
        model, norm=NORMS[norm], eps=eps, steps=10, multi_targeted=targets is not None, n_classes=10
    )
    assert victim.accuracy(x_adv) < victim.accuracy(x)
    assert victim.accuracy(x_adv) <= victim.accuracy(original(x, y)) + victim.points(0.5)


def test_without_eps_distances_are_as_short_as_torchattacks(digits_victim):
    victim = digits_victim.first(30)
    model, x, y = victim.model, victim.x, victim.y
    right = model(x).argmax(dim=1) == y
    ours = fab(model, x, y, steps=20)
    theirs = torchattacks.FAB(model, norm="Linf", eps=1.0, steps=20, n_classes=10)(x, y)
    assert (model(ours).argmax(dim=1) != y).all()
    mean, reference = (distances(z - x, "linf")[right].mean() for z in (ours, theirs))
    assert float(mean) <= float(reference) * 1.01
    assert torch.equal(ours[~right], x[~right])


def test_errors_name_the_choices(linear_case):
    with pytest.raises(ValueError, match="linf, l2"):
        fab(linear_case.model, linear_case.x, linear_case.y, norm="l1")
    with pytest.raises(ValueError, match="steps=0"):
        fab(linear_case.model, linear_case.x, linear_case.y, steps=0)
