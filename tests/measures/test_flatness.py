"""Flatness measures against explicit Hessians, Gaussian integrals and second-order expansions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from defenses.spec import Threat
from measures import Context, Undefined
from measures.adaptive_sharpness import adaptive_sharpness, average_adaptive_sharpness
from measures.average_flat import average_flat
from measures.awp_loss_gap import awp_loss_gap
from measures.engine.lanczos import ritz_values
from measures.estimated_sharpness import estimated_inv_sharpness, estimated_sharpness
from measures.fisher_rao import fisher_rao
from measures.hessian_spectrum import (
    effective_dimension,
    hessian_top,
    hessian_trace,
    weight_curvature,
)
from measures.pacbayes import pacbayes_bound, pacbayes_flat, pacbayes_mag_bound, pacbayes_mag_flat
from measures.relative_flatness import last_layer_trace, relative_flatness
from measures.worst_case_flat import worst_case_flat

Build = Callable[..., nn.Sequential]
MakeContext = Callable[..., Context]
Hessian = Callable[[nn.Module, Tensor, Tensor], Tensor]
NO_ATTACK = Threat(eps=0.0, step_size=0.0)


@pytest.fixture
def quadratic(
    relu_net: nn.Sequential, context: MakeContext, hessian: Hessian
) -> tuple[Context, Tensor, Tensor, Tensor]:
    """A smooth network without attack, with w, g and H of its loss, all float64."""
    smooth = nn.Sequential(*(nn.Tanh() if isinstance(m, nn.ReLU) else m for m in relu_net))
    measured = context(smooth, threat=NO_ATTACK)
    w = torch.cat([p.detach().double().flatten() for p in smooth.parameters()])
    g = torch.cat([t.double().flatten() for t in measured.clean.weight_gradient.values()])
    return measured, w, g, hessian(smooth, measured.images, measured.labels)


def test_sharpness_of_a_quadratic(quadratic: tuple[Context, Tensor, Tensor, Tensor]) -> None:
    """L(w + ρg/‖g‖) - L(w) = ρ‖g‖ + ½ρ²gᵀHg/‖g‖² up to the third order in ρ."""
    measured, _, g, hessian = quadratic
    rho = 0.02
    expected = rho * g.norm() + 0.5 * rho**2 * (g @ hessian @ g) / (g @ g)
    found = estimated_sharpness(measured, on="clean", rho=rho)
    assert found == pytest.approx(float(expected), rel=1e-3)
    linear_part = float(rho * g.norm())
    assert abs(found - linear_part) > 10 * abs(found - float(expected))


def test_adaptive_sharpness_of_a_linear_loss(
    quadratic: tuple[Context, Tensor, Tensor, Tensor],
) -> None:
    """To first order: ρ‖Tg‖ for one ASAM step, ρ Σ|w_i g_i| for the worst case in the box."""
    measured, w, g, _ = quadratic
    rho = 1e-3
    asam = estimated_inv_sharpness(measured, on="clean", rho=rho, eta=0.0)
    assert asam == pytest.approx(rho * float((w * g).norm()), rel=0.01)
    box = adaptive_sharpness(measured, on="clean", normalised=False, rho=rho)
    assert box == pytest.approx(rho * float((w * g).abs().sum()), rel=0.01)


def test_rescaling_relu_layers_changes_no_adaptive_sharpness(
    relu_net: nn.Sequential, rescaled: nn.Sequential, context: MakeContext
) -> None:
    def values(model: nn.Module) -> list[float]:
        measured = context(model)
        return [
            estimated_inv_sharpness(measured, on="adversarial", eta=0.0),
            adaptive_sharpness(measured, on="adversarial", normalised=False),
            average_adaptive_sharpness(measured, on="adversarial").value,
            fisher_rao(measured, on="adversarial"),
        ]

    assert values(rescaled) == pytest.approx(values(relu_net), rel=1e-3)
    plain = [estimated_sharpness(context(m), on="adversarial") for m in (relu_net, rescaled)]
    assert plain[0] != pytest.approx(plain[1], rel=0.05)


def test_auto_pgd_finds_the_worst_corner(relu_net: nn.Sequential, context: MakeContext) -> None:
    measured = context(relu_net)
    values = [
        adaptive_sharpness(measured, on="clean", normalised=False, rho=0.2, steps=steps)
        for steps in (1, 5, 20)
    ]
    assert 0 < values[0] <= values[1] <= values[2]
    corners = torch.cartesian_prod(*[torch.tensor([-0.2, 0.2])] * 10)
    assert len(corners) == 1024  # the box of a model small enough to visit every corner
    small = nn.Sequential(nn.Linear(5, 2, bias=False))
    x, y = measured.images[:, :5], measured.labels.clamp_max(1)
    little = context(small, x=x, y=y)
    w = small[0].weight.detach().flatten()
    at_corners = torch.stack(
        [nn.functional.cross_entropy(x @ (w * (1 + c)).view(2, 5).T, y) for c in corners]
    )
    gain = float(at_corners.max() - nn.functional.cross_entropy(small(x).detach(), y))
    found = adaptive_sharpness(little, on="clean", normalised=False, rho=0.2)
    assert found == pytest.approx(gain, rel=1e-4)  # convex loss: its maximum is at a corner


def test_normalised_sharpness_ignores_the_scale_of_the_logits(
    relu_net: nn.Sequential, context: MakeContext
) -> None:
    measured = context(relu_net)
    before = adaptive_sharpness(measured, on="clean", normalised=True)
    with torch.no_grad():
        measured.model[4].weight *= 7
    assert adaptive_sharpness(measured, on="clean", normalised=True) == pytest.approx(
        before, rel=1e-3
    )


def test_average_adaptive_sharpness_is_a_weighted_trace(
    quadratic: tuple[Context, Tensor, Tensor, Tensor],
) -> None:
    """E L(w+ν) - L(w) = ½ρ² Σ w_i² H_ii to second order."""
    measured, w, _, hessian = quadratic
    found = average_adaptive_sharpness(measured, on="clean", rho=0.02, pairs=500)
    expected = 0.5 * 0.02**2 * float((w**2 * hessian.diag()).sum())
    assert abs(found.value - expected) < 4 * found.se
    assert found.se < 0.3 * expected


def test_awp_gap_to_first_order(quadratic: tuple[Context, Tensor, Tensor, Tensor]) -> None:
    """γ Σ_l ‖w_l‖‖g_l‖."""
    measured, _, _, _ = quadratic
    gradient = measured.clean.weight_gradient
    weights = dict(measured.model.named_parameters())
    expected = 1e-3 * sum(float(weights[n].detach().norm() * g.norm()) for n, g in gradient.items())
    assert awp_loss_gap(measured, on="clean", gamma=1e-3) == pytest.approx(expected, rel=0.01)


def test_average_flatness_without_attack_is_a_trace(linear: Build, context: MakeContext) -> None:
    """ν uniform on ‖ν‖ = ξ‖w‖ in d dimensions: E L(w+ν) - L(w) = ½ξ²‖w‖² tr H/d to 2nd order.

    (For the square loss of a linear regression tr H/d is E‖x‖²/d.)
    """
    model = linear((3, 8))
    measured = context(model, threat=NO_ATTACK)
    found = average_flat(measured, radius=0.05, pairs=100, attack_steps=1)
    p = measured.clean.probabilities.double()
    trace = (measured.images.double().pow(2).sum(1) * (1 - p.pow(2).sum(1))).mean()
    square = model[1].weight.detach().double().pow(2).sum()
    expected = 0.5 * 0.05**2 * float(square * trace) / 24
    assert abs(found.value - expected) < 4 * found.se
    assert found.se < 0.3 * expected


def test_worst_case_flatness(relu_net: nn.Sequential, context: MakeContext) -> None:
    """Without attack and for a small radius ξ Σ_l ‖w_l‖‖g_l‖; with attack above the average."""
    still = context(relu_net, threat=NO_ATTACK)
    first_order = 0.001 * sum(
        float(dict(still.model.named_parameters())[n].detach().norm() * g.norm())
        for n, g in still.clean.weight_gradient.items()
    )
    found = worst_case_flat(still, radius=0.001)
    assert found == pytest.approx(first_order, rel=0.02)
    attacked = context(relu_net)
    average = average_flat(attacked, radius=0.05).value
    assert worst_case_flat(attacked, radius=0.05) > average


def test_pacbayes_of_a_linear_model(linear: Build, context: MakeContext) -> None:
    """Noise σ on two rows flips an example of margin m with probability Φ(-m/(σ√2‖x‖))."""
    a = torch.tensor([2.0, -1.0, 1.0, -1.5, 0.5, 0.0, 1.0, -2.0])
    model = linear(torch.stack([a, -a]))
    x = (0.5 + 0.2 * a.sign()).expand(40, 8)  # every example has the same margin and norm
    measured = context(model, x=x, y=torch.zeros(40, dtype=torch.int64), threat=NO_ATTACK)
    margin = float(measured.clean.margins[0])
    sigma = margin / (-norm.ppf(0.1) * math.sqrt(2) * float(x[0].norm()))
    assert sigma < 2
    found = pacbayes_flat(measured, on="clean", draws=500)
    assert abs(found.value - 1 / sigma**2) < 3 * found.se
    assert found.se < 0.15 / sigma**2


def test_pacbayes_magnitude_noise(linear: Build, context: MakeContext) -> None:
    """Noise of std σ'|w_i|: the margin's std is σ'√(Σ_i (w_0i² + w_1i²) x_i²)."""
    a = torch.tensor([2.0, -1.0, 1.0, -1.5, 0.5, 0.3, 1.0, -2.0])
    model = linear(torch.stack([a, -a]))
    x = (0.5 + 0.2 * a.sign()).expand(40, 8)
    measured = context(model, x=x, y=torch.zeros(40, dtype=torch.int64), threat=NO_ATTACK)
    scale = math.sqrt(2 * float((a**2 * x[0] ** 2).sum()))
    sigma = float(measured.clean.margins[0]) / (-norm.ppf(0.1) * scale)
    found = pacbayes_mag_flat(measured, on="clean", draws=500)
    assert abs(found.value - 1 / sigma**2) < 3 * found.se
    assert found.se < 0.15 / sigma**2


def test_pacbayes_bounds(linear: Build, context: MakeContext) -> None:
    model = linear((2, 8))
    y = linear((2, 8))  # other weights: the initial ones
    measured = context(model, y=torch.zeros(40, dtype=torch.int64), initial_state=y.state_dict())
    measured.labels = measured.clean.logits.argmax(dim=1)
    measured.train_size = 5000
    sigma = pacbayes_flat(measured, on="adversarial").value ** -0.5
    scaled = pacbayes_mag_flat(measured, on="adversarial").value ** -0.5
    w = model[1].weight.detach().double()
    moved = w - y[1].weight.detach().double()
    for from_init, v in ((False, w), (True, moved)):
        square = float(v.pow(2).sum())
        expected = square / (4 * sigma**2) + math.log(5000 / sigma) + 10
        assert pacbayes_bound(measured, from_init=from_init).value == pytest.approx(expected)
        above = 1e-6 + (scaled**2 + 1) * square / 16
        logs = (above / (1e-6 + scaled**2 * v.pow(2))).log().sum()
        by_magnitude = float(logs) / 4 + math.log(5000 / scaled) + 10
        found = pacbayes_mag_bound(measured, from_init=from_init)
        assert found.value == pytest.approx(by_magnitude)


def test_pacbayes_where_the_search_has_no_answer(linear: Build, context: MakeContext) -> None:
    zero = torch.zeros(40, dtype=torch.int64)
    hopeless = context(linear(torch.zeros(2, 8), torch.tensor([-1.0, 1.0])), y=zero)
    with pytest.raises(Undefined, match=r"accuracy 0\.000 cannot fall by 0\.1"):
        pacbayes_flat(hopeless, on="clean")
    sturdy = context(linear(torch.zeros(2, 8), torch.tensor([1e4, -1e4])), y=zero)
    with pytest.raises(Undefined, match="the search is censored"):
        pacbayes_flat(sturdy, on="clean")
    model = linear((2, 8))
    unknown = context(model)
    unknown.labels = unknown.clean.logits.argmax(dim=1)
    with pytest.raises(Undefined, match="number of training images is not known"):
        pacbayes_bound(unknown, from_init=False)


def test_hessian_trace_and_top_eigenvalue(
    quadratic: tuple[Context, Tensor, Tensor, Tensor],
) -> None:
    measured, _, _, hessian = quadratic
    trace = hessian_trace(measured, on="clean", probes=400)
    assert abs(trace.value - float(hessian.trace())) < 4 * trace.se
    # One probe of random signs has variance 2(‖H‖_F² - Σ H_ii²); the subspace takes most of it.
    variance = 2 * float(hessian.pow(2).sum() - hessian.diag().pow(2).sum())
    assert 0 < trace.se < 0.5 * math.sqrt(variance / 400)
    eigenvalues = torch.linalg.eigvalsh(hessian)
    assert hessian_top(measured, on="clean") == pytest.approx(float(eigenvalues[-1]), rel=1e-3)


def test_lanczos_finds_both_ends(quadratic: tuple[Context, Tensor, Tensor, Tensor]) -> None:
    """The largest eigenvalue even where a negative one is larger in magnitude."""
    matrix = torch.diag(torch.tensor([-5.0, -1.0, 0.0, 0.5, 3.0, 3.0], dtype=torch.float64))
    start = torch.ones(6, dtype=torch.float64)
    values = ritz_values(lambda v: matrix @ v, start)
    assert float(values[-1]) == pytest.approx(3)
    assert float(values[0]) == pytest.approx(-5)
    assert len(values) == 5  # the double eigenvalue counts once: the space is exhausted


def test_effective_dimension(quadratic: tuple[Context, Tensor, Tensor, Tensor]) -> None:
    measured, _, _, hessian = quadratic
    eigenvalues = torch.linalg.eigvalsh(hessian).clamp_min(0)
    expected = float((eigenvalues / (eigenvalues + 0.1)).sum())
    found = effective_dimension(measured, on="clean", prior=0.1, probes=30, steps=20)
    assert abs(found.value - expected) < 4 * found.se
    assert found.se < 0.2 * expected


def test_weight_curvature(
    relu_net: nn.Sequential, rescaled: nn.Sequential, context: MakeContext, hessian: Hessian
) -> None:
    measured = context(relu_net, threat=NO_ATTACK)
    diagonal = hessian(relu_net, measured.images, measured.labels).diag()
    parts = [p.detach() for p in relu_net.parameters()]
    traces = [float(block.sum()) for block in diagonal.split([p.numel() for p in parts])]
    expected = sum(
        float(p.norm()) * math.sqrt(trace) for p, trace in zip(parts, traces, strict=True)
    )
    found = weight_curvature(measured, on="clean", probes=1000)
    assert found.value == pytest.approx(expected, rel=0.05)
    other = weight_curvature(context(rescaled, threat=NO_ATTACK), on="clean", probes=1000)
    assert abs(other.value - found.value) < 4 * math.hypot(other.se, found.se)


def test_last_layer_in_closed_form(
    relu_net: nn.Sequential, context: MakeContext, hessian: Hessian
) -> None:
    """Against the explicit Hessian of the last layer alone, on the features that reach it."""
    measured = context(relu_net)
    features = relu_net[:-1](measured.images).detach()
    explicit = hessian(relu_net[-1:], features, measured.labels)
    found = last_layer_trace(measured, on="clean")
    assert found == pytest.approx(float(explicit.trace()), rel=1e-5)
    rows = relu_net[-1].weight.detach().double()
    blocks = explicit.view(3, 5, 3, 5).diagonal(dim1=1, dim2=3).sum(dim=-1)  # tr H_{s,s'}
    kappa = float((rows @ rows.T * blocks).sum())
    assert relative_flatness(measured, on="clean") == pytest.approx(kappa, rel=1e-5)


def test_relative_flatness_needs_a_linear_head(context: MakeContext) -> None:
    headless = nn.Sequential(nn.Linear(8, 3), nn.Tanh())
    with pytest.raises(Undefined, match="last layer is not a linear layer"):
        relative_flatness(context(headless), on="clean")


def test_fisher_rao_identity(relu_net: nn.Sequential, context: MakeContext) -> None:
    """Three homogeneous layers: 3² E(⟨p, z⟩ - z_y)²."""
    measured = context(relu_net, batch_size=7)
    z = measured.clean.logits.double()
    p = measured.clean.probabilities.double()
    gap = (p * z).sum(dim=1) - z[torch.arange(40), measured.labels]
    expected = 9 * float(gap.pow(2).mean())
    assert fisher_rao(measured, on="clean") == pytest.approx(expected, rel=1e-4)
