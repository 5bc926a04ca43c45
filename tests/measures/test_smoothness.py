"""Thickness, Lipschitz constants, radii and curvature in the pixels against linear models."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from defenses.spec import Threat
from measures import Context
from measures.boundary_thickness import boundary_reach, boundary_thickness
from measures.clever import clever
from measures.input_curvature import cure_curvature, grad_align, local_linearity
from measures.jacobian_norm import jacobian_norm
from measures.local_lip import local_lip
from measures.minimal_distance import minimal_distance

Build = Callable[..., nn.Sequential]
MakeContext = Callable[..., Context]
EPS = 0.05


@pytest.fixture
def two_classes(linear: Build, draw: Callable[..., Tensor], labels: Tensor) -> nn.Sequential:
    """A linear model of two classes."""
    return linear(3 * draw(2, 8))


def normal_of(model: nn.Sequential) -> Tensor:
    """w_0 - w_1, float64."""
    rows = model[1].weight.detach().double()
    return rows[0] - rows[1]


def test_thickness_of_a_linear_boundary(
    linear: Build, context: MakeContext, labels: Tensor
) -> None:
    """The attack moves along the normal, so the zone 0 < p_i - p_j < 3/4 is ln 7/‖w_i - w_j‖
    wide wherever the segment spans it."""
    direction = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0]) / math.sqrt(8)
    model = linear(torch.stack([20 * direction, -20 * direction]))
    x = 0.5 + 0.1 * direction.expand(8, 8)  # p_0 - p_1 = tanh(2) > 3/4 at the start
    measured = context(model, x=x, y=torch.zeros(8, dtype=torch.int64))
    found = boundary_thickness(measured, points=4096, attack_eps=0.5)
    assert found.value == pytest.approx(math.log(7) / 40, rel=2e-3)
    assert boundary_reach(measured, points=4096, attack_eps=0.5).value == 1
    near = boundary_reach(measured, attack_eps=0.05)
    assert near.value == 0  # the attack ends before the boundary, 0.1 away


def test_thickness_with_few_points_is_unbiased(linear: Build, context: MakeContext) -> None:
    measured = context(linear((3, 8)), threat=Threat(eps=EPS))
    fine = boundary_thickness(measured, points=2048, attack_eps=2.0).value
    assert boundary_thickness(measured, attack_eps=2.0).value == pytest.approx(fine, rel=0.02)


def test_targets_are_never_the_predicted_class(linear: Build, context: MakeContext) -> None:
    """If they were, p_i - p_j would vanish on the whole segment and count as thickness 0."""
    model = linear(torch.zeros(2, 8), torch.tensor([1.0, 0.0]))  # nothing moves: p_0 - p_1 const
    found = boundary_thickness(context(model, y=torch.zeros(40, dtype=torch.int64)))
    assert found.value == 0  # the segments have no length
    assert boundary_reach(context(model, y=torch.zeros(40, dtype=torch.int64))).value == 0


@pytest.mark.parametrize("eps", [0.02, 0.05])
def test_local_lip_is_exact_for_opposite_rows(
    linear: Build, context: MakeContext, draw: Callable[..., Tensor], eps: float
) -> None:
    """W = (w, -w): 2‖w‖₁, whatever eps is."""
    w = draw(8)
    measured = context(linear(torch.stack([w, -w])), threat=Threat(eps=eps, step_size=eps / 4))
    measured.labels = measured.labels.clamp_max(1)
    found = local_lip(measured, output="logits")
    assert found.value == pytest.approx(2 * float(w.abs().sum()), rel=1e-3)


def test_local_lip_is_bounded_for_any_rows(linear: Build, context: MakeContext) -> None:
    model = linear((3, 8))
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 8)
    bound = float((signs @ model[1].weight.detach().T).abs().sum(dim=1).max())
    found = local_lip(context(model), output="logits").value
    assert 0.75 * bound < found <= bound * (1 + 1e-5)


def test_local_lip_of_probabilities_has_a_fixed_scale(linear: Build, context: MakeContext) -> None:
    """Probabilities lie on a simplex: no two are further apart than 2 in l1."""
    steep = context(linear((3, 8)))
    with torch.no_grad():
        steep.model[1].weight *= 1000
    assert local_lip(steep, output="logits").value > 1000
    assert local_lip(steep, output="probabilities").value <= 2 / (0.001 * 0.5)


def test_local_lip_l2(linear: Build, context: MakeContext, draw: Callable[..., Tensor]) -> None:
    w = draw(8)
    threat = Threat(norm="l2", eps=0.1, step_size=0.025)
    measured = context(linear(torch.stack([w, -w])), threat=threat)
    measured.labels = measured.labels.clamp_max(1)
    found = local_lip(measured, output="logits", steps=30)
    assert found.value == pytest.approx(2 * float(w.norm()), rel=1e-2)


def loss_of(margin: Tensor) -> Tensor:
    """Cross-entropy of two classes as a function of the margin."""
    return nn.functional.softplus(-margin)


def test_curvature_of_two_linear_classes(
    two_classes: nn.Sequential, context: MakeContext, labels: Tensor
) -> None:
    """The loss is a function of the margin m alone, with slope -σ(-m); the step of eps·sign(∇)
    takes eps·‖a‖₁ from m, a = w_y - w_j."""
    y = labels.clamp_max(1)
    measured = context(two_classes, y=y)
    a = normal_of(two_classes)
    m = measured.clean.margins.double()
    change = (torch.sigmoid(-(m - EPS * a.abs().sum())) - torch.sigmoid(-m)) * a.norm()
    expected = (change / (EPS * math.sqrt(8))).mean()
    assert cure_curvature(measured) == pytest.approx(float(expected), rel=1e-4)


def test_local_linearity_without_room_is_zero(
    relu_net: nn.Sequential, context: MakeContext
) -> None:
    assert local_linearity(context(relu_net, threat=Threat(eps=0.0))).value == pytest.approx(0)


def test_local_linearity_of_two_linear_classes(
    two_classes: nn.Sequential, context: MakeContext, labels: Tensor
) -> None:
    """The gap to the tangent is convex in the margin: largest where it moved by ±eps·‖a‖₁."""
    measured = context(two_classes, y=labels.clamp_max(1))
    reach = EPS * normal_of(two_classes).abs().sum()
    m = measured.clean.margins.double()
    gaps = [loss_of(m + t) - loss_of(m) + torch.sigmoid(-m) * t for t in (reach, -reach)]
    best, other = (side(torch.stack(gaps), dim=0).mean() for side in (torch.amax, torch.amin))
    found = local_linearity(measured, steps=20).value
    # A start decides on which side the ascent ends; some of the 80 end on each.
    assert float(other) * 1.01 < found < float(best) * (1 + 1e-4)


def test_gradients_of_two_linear_classes_are_aligned(
    two_classes: nn.Sequential, context: MakeContext, labels: Tensor
) -> None:
    aligned = grad_align(context(two_classes, y=labels.clamp_max(1)))
    assert aligned.value == pytest.approx(0, abs=1e-6)


def test_grad_align_grows_with_the_bend(relu_net: nn.Sequential, context: MakeContext) -> None:
    values = [
        grad_align(context(relu_net, threat=Threat(eps=eps, step_size=eps / 4))).value
        for eps in (0.001, 0.05, 0.3)
    ]
    assert 0 < values[0] < values[1] < values[2] < 2


def test_jacobian_norm_of_a_linear_model(linear: Build, context: MakeContext) -> None:
    model = linear((3, 8))
    found = jacobian_norm(context(model), projections=200)
    assert found.value == pytest.approx(float(model[1].weight.detach().norm()), rel=0.03)
    assert abs(found.value - float(model[1].weight.detach().norm())) < 4 * found.se


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_clever_of_a_linear_model(
    linear: Build, context: MakeContext, norm: str, dual: int
) -> None:
    model = linear((3, 8))
    threat = Threat(norm=norm, eps=0.2, step_size=0.05)
    measured = context(model, threat=threat)
    rows = model[1].weight.detach().double()
    expected = []
    for z in measured.clean.logits[:16].double():
        c, j = z.topk(2).indices
        radius = (z[c] - z[j]) / (rows[c] - rows[j]).norm(p=dual)
        expected.append(min(float(radius), 0.4))
    assert clever(measured) == pytest.approx(sum(expected) / 16, rel=1e-4)


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_minimal_distance_of_a_linear_model(
    linear: Build, context: MakeContext, norm: str, dual: int
) -> None:
    model = linear((3, 8))
    measured = context(model, threat=Threat(norm=norm, eps=EPS))
    rows = model[1].weight.detach().double()
    logits = measured.clean.logits.double()
    expected = []
    for z, y in zip(logits, measured.labels, strict=True):
        others = [j for j in range(3) if j != y]
        radii = [float((z[y] - z[j]) / (rows[y] - rows[j]).norm(p=dual)) for j in others]
        expected.append(max(min(radii), 0.0))  # 0 where the model is wrong
    found = minimal_distance(measured)
    assert found == pytest.approx(sum(expected) / 40, rel=1e-4)
