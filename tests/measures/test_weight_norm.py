"""Weight norms: closed forms, invariances, and paths counted one by one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.architectures import build
from measures import Context, Undefined
from measures.distance_from_init import dist_spec_init, euclid_init_norm
from measures.log_norm_sums import log_prod, log_prod_over_margin, log_sum, log_sum_over_margin
from measures.path_norm import log_path_norm, path_norm, path_norm_over_margin
from measures.path_norm_l1 import path_norm_l1
from measures.spectral_bounds import log_spec_init_main, log_spec_orig_main
from measures.weight_totals import fro_over_spec, param_norm, params

Build = Callable[..., nn.Sequential]
MakeContext = Callable[..., Context]


def test_path_norm_of_a_linear_layer(linear: Build, context: MakeContext) -> None:
    model = linear((3, 8), torch.tensor([1.0, -2.0, 3.0]))
    squares = sum(float(p.detach().double().pow(2).sum()) for p in model.parameters())
    sums = sum(float(p.detach().double().abs().sum()) for p in model.parameters())
    assert path_norm(context(model)) == pytest.approx(math.log(squares), rel=1e-6)
    assert path_norm_l1(context(model)) == pytest.approx(math.log(sums), rel=1e-6)


def test_rescaling_relu_layers_changes_no_path(
    relu_net: nn.Sequential, rescaled: nn.Sequential, context: MakeContext, images: Tensor
) -> None:
    torch.testing.assert_close(rescaled(images), relu_net(images))  # the same function
    for measure in (path_norm, path_norm_l1):
        assert measure(context(rescaled)) == pytest.approx(measure(context(relu_net)), rel=1e-6)
    norms = [log_prod(context(m), norm="frobenius", weights="raw") for m in (relu_net, rescaled)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)  # 10² and 10⁻²


class Residual(nn.Module):
    """z = C (relu(B relu(A x + a)) + D x): a skip connection that is a layer of its own."""

    def __init__(self, draw: Callable[..., Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (
            nn.Linear(4, 3),
            nn.Linear(3, 2, bias=False),
            nn.Linear(2, 2, bias=False),
            nn.Linear(4, 2, bias=False),
        )
        for parameter in self.parameters():
            parameter.data = draw(*parameter.shape)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.b(F.relu(self.a(x))))
        inner += self.d(x)
        logits: Tensor = self.c(inner)
        return logits


@pytest.mark.parametrize("power", [1, 2])
def test_paths_counted_one_by_one(
    draw: Callable[..., Tensor], context: MakeContext, power: int
) -> None:
    model = Residual(draw)
    a, bias, b, c, d = (
        p.detach().double().abs().pow(power)
        for p in (model.a.weight, model.a.bias, model.b.weight, model.c.weight, model.d.weight)
    )
    total = 0.0
    for out, mid in itertools.product(range(2), range(2)):
        for i in range(4):
            total += float(c[out, mid] * d[mid, i])
            total += sum(float(c[out, mid] * b[mid, h] * a[h, i]) for h in range(3))
        total += sum(float(c[out, mid] * b[mid, h] * bias[h]) for h in range(3))
    measured = context(model, x=torch.rand(40, 4), y=torch.zeros(40, dtype=torch.int64))
    assert log_path_norm(measured, power=power) == pytest.approx(math.log(total), rel=1e-6)


@pytest.mark.parametrize("name", ["resnet_small", "wrn10_2"])
def test_without_negative_weights_the_l1_paths_are_the_logits(
    name: str, context: MakeContext
) -> None:
    """All weights positive: no ReLU cuts, and Σ|paths| of ones is the network's own output."""
    model = build(name, num_classes=4, image_size=8).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    ones = torch.ones(1, 3, 8, 8)
    measured = context(model, x=ones, y=torch.zeros(1, dtype=torch.int64))
    expected = math.log(float(model(ones).detach().double().sum()))
    assert path_norm_l1(measured) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("pool", "linear_pool"),
    [
        (nn.AvgPool2d(2), "average"),
        (nn.AvgPool2d(3, stride=2, padding=1), "average"),
        (nn.AdaptiveAvgPool2d(2), "average"),
        (nn.MaxPool2d(2), "sum"),
        (nn.MaxPool2d(3, stride=2, padding=1), "sum"),
    ],
    ids=str,
)
def test_pooling_is_a_layer_of_paths(
    pool: nn.Module, linear_pool: str, context: MakeContext
) -> None:
    """Against the dense matrix: n weights of 1/n for averages, n weights of 1 for a maximum."""
    side = pool(torch.zeros(1, 1, 4, 4)).shape[-1]
    head = nn.Linear(side * side, 3, bias=False)
    model = nn.Sequential(pool, nn.Flatten(), head)
    basis = torch.eye(16).view(16, 1, 4, 4)
    matrix = pool(basis).flatten(1).T.double()
    if linear_pool == "sum":
        matrix = (matrix > 0).double()
    total = float((head.weight.detach().double() ** 2 @ matrix**2).sum())
    measured = context(model, x=torch.rand(2, 1, 4, 4), y=torch.tensor([0, 1]))
    assert path_norm(measured) == pytest.approx(math.log(total), rel=1e-6)


def test_depth_does_not_overflow(context: MakeContext) -> None:
    """350 orthogonal layers H/8, H a Hadamard matrix: each multiplies the l1 paths by 8, to a
    total of 64·8³⁵⁰, beyond the range of float64, while the function keeps its size."""
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    hadamard = torch.ones(1, 1)
    for _ in range(6):
        hadamard = torch.kron(hadamard, two)
    layers = [nn.Linear(64, 64, bias=False) for _ in range(350)]
    for layer in layers:
        layer.weight = nn.Parameter(hadamard / 8)
    measured = context(nn.Sequential(*layers), x=torch.rand(2, 64), y=torch.tensor([0, 1]))
    assert path_norm_l1(measured) == pytest.approx(math.log(64) + 350 * math.log(8), rel=1e-9)
    assert log_prod(measured, norm="spectral", weights="folded") == pytest.approx(0, abs=1e-4)


def test_paths_need_homogeneous_layers(context: MakeContext) -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 3))
    with pytest.raises(Undefined, match="path norm is not defined for GELU"):
        path_norm(context(model))
    assert math.isfinite(log_prod(context(model), norm="spectral", weights="folded"))


def test_spectral_product(linear: Build, context: MakeContext, draw: Callable[..., Tensor]) -> None:
    orthogonal, _ = torch.linalg.qr(draw(8, 8))
    two = nn.Sequential(*linear(orthogonal), nn.ReLU(), *linear(orthogonal))
    assert log_prod(context(two), norm="spectral", weights="folded") == pytest.approx(0, abs=1e-6)
    diagonal = [torch.tensor([3.0, -5.0, 1.0] + [0.5] * 5).diag(), 2 * torch.eye(8)]
    model = nn.Sequential(*linear(diagonal[0]), nn.ReLU(), *linear(diagonal[1]))
    expected = 2 * math.log(5) + 2 * math.log(2)
    for weights in ("folded", "raw"):
        found = log_prod(context(model), norm="spectral", weights=weights)
        assert found == pytest.approx(expected, rel=1e-6)
    averaged = log_sum(context(model), norm="spectral")
    assert averaged == pytest.approx(math.log(2) + expected / 2, rel=1e-6)


def test_frobenius_product(linear: Build, context: MakeContext) -> None:
    """W = c·I_n gives log c²n."""
    model = linear(3 * torch.eye(8))
    found = log_prod(context(model), norm="frobenius", weights="folded")
    assert found == pytest.approx(math.log(9 * 8), rel=1e-6)


def test_folded_and_raw_products_differ_by_the_batch_norm(context: MakeContext) -> None:
    """A convolution with its batch-norm: folding divides its norm by √(var + ε)."""
    norm = nn.BatchNorm2d(4)
    norm.running_var = torch.full((4,), 9.0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.Flatten(), nn.Linear(4 * 4, 3)).eval()
    measured = context(model, x=torch.rand(8, 1, 4, 4), y=torch.zeros(8, dtype=torch.int64))
    for name in ("spectral", "frobenius"):
        raw = log_prod(measured, norm=name, weights="raw")
        folded = log_prod(measured, norm=name, weights="folded")
        assert folded - raw == pytest.approx(-math.log(9.00001), rel=1e-4)


def test_a_diagonal_layer_counts_as_its_matrix(context: MakeContext) -> None:
    """A batch-norm behind a ReLU stays: spectral norm max|scale|, Frobenius norm ‖scale‖₂."""
    norm = nn.BatchNorm1d(8, affine=True).eval()
    norm.weight.data = torch.tensor([1.0, 2.0, -4.0] + [0.0] * 5)
    norm.running_var = torch.full((8,), 1 - norm.eps)
    eye = nn.Linear(8, 8, bias=False)
    eye.weight = nn.Parameter(torch.eye(8))
    measured = context(nn.Sequential(nn.ReLU(), norm, eye))
    assert log_prod(measured, norm="spectral", weights="folded") == pytest.approx(2 * math.log(4))
    total = log_prod(measured, norm="frobenius", weights="folded")
    assert total == pytest.approx(math.log(21) + math.log(8))
    assert log_prod(measured, norm="spectral", weights="raw") == pytest.approx(0, abs=1e-6)


def confident(linear: Build, margin: float) -> tuple[nn.Sequential, Tensor]:
    """A network that is right by exactly ``margin``, with or without attack; all labels 0."""
    bias = torch.tensor([margin, 0.0, 0.0])
    first, last = linear(torch.eye(8)), linear(torch.zeros(3, 8), bias)
    with torch.no_grad():
        last[1].weight[:, 0] = 1.0  # moves all logits alike
    return nn.Sequential(*first, nn.ReLU(), *last), torch.zeros(40, dtype=torch.int64)


def test_over_margin_variants(linear: Build, context: MakeContext) -> None:
    model, y = confident(linear, 5.0)
    measured, gamma = context(model, y=y), 2 * math.log(5.0)
    for norm in ("spectral", "frobenius"):
        product = log_prod(measured, norm=norm, weights="folded")
        found = log_prod_over_margin(measured, norm=norm)
        assert found == pytest.approx(product - gamma, abs=1e-5)
        averaged = log_sum_over_margin(measured, norm=norm)
        assert averaged == pytest.approx(math.log(2) + (product - gamma) / 2, abs=1e-5)
    assert path_norm_over_margin(measured) == pytest.approx(path_norm(measured) - gamma, abs=1e-5)


def test_over_margin_variants_are_undefined_for_negative_margins(
    linear: Build, context: MakeContext
) -> None:
    model, y = confident(linear, 5.0)
    wrong = context(model, y=y + 1)
    for measure in (
        lambda: log_prod_over_margin(wrong, norm="spectral"),
        lambda: log_sum_over_margin(wrong, norm="frobenius"),
        lambda: path_norm_over_margin(wrong),
        lambda: log_spec_orig_main(wrong),
    ):
        with pytest.raises(Undefined, match="margin is not positive"):
            measure()


def test_spectral_bounds(linear: Build, context: MakeContext) -> None:
    """Layers I₈ (spectral 1, Frobenius² 8) and a 3×8 matrix of one column of ones (√3, 3)."""
    model, y = confident(linear, 5.0)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    initial["1.weight"] = torch.zeros(8, 8)
    measured = context(model, y=y, initial_state=initial)
    common = math.log(3) - 2 * math.log(5)
    assert log_spec_orig_main(measured) == pytest.approx(common + math.log(8 + 1), abs=1e-5)
    assert log_spec_init_main(measured) == pytest.approx(common + math.log(8), abs=1e-5)
    assert param_norm(measured) == pytest.approx(8 + 3)
    assert fro_over_spec(measured) == pytest.approx(8 + 1)
    assert params(measured) == 64 + 24 + 3
    unmoved = context(model, y=y, initial_state=model.state_dict())
    with pytest.raises(Undefined, match="the weights are those before training"):
        log_spec_init_main(unmoved)


def test_distance_from_initial_weights(context: MakeContext) -> None:
    model = build("wrn10_1", num_classes=3, in_channels=1, image_size=8)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x, y = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)

    def distances() -> list[float]:
        measured = context(model, x=x, y=y, initial_state=initial)
        both = [euclid_init_norm(measured, weights=weights) for weights in ("raw", "folded")]
        return [*both, dist_spec_init(measured)]

    assert distances() == [0, 0, 0]
    with torch.no_grad():
        model[1].linear.weight[0, :2] += torch.tensor([3.0, 4.0])
    assert distances() == pytest.approx([5, 5, 25], rel=1e-5)


def test_no_initial_weights(linear: Build, context: MakeContext) -> None:
    with pytest.raises(Undefined, match="before training are not known"):
        euclid_init_norm(context(linear((3, 8))), weights="raw")
    other = context(linear((3, 8)), initial_state=linear((4, 8)).state_dict())
    with pytest.raises(Undefined, match="of another model"):
        euclid_init_norm(other, weights="raw")
