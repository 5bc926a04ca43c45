"""Batch-norm folded by graph: same logits, right layers, clear reasons where it cannot be."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.architectures import build
from measures import Undefined
from measures.engine.folding import Diagonal, fold, linear_maps
from measures.engine.operator_norm import frobenius_norm, spectral_norm


def with_random_statistics(model: nn.Module) -> nn.Module:
    """Batch-norm layers as after training: no scale is 1, no shift or mean is 0."""
    stream = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 2, generator=stream)
            module.bias.data.normal_(generator=stream)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=stream)
            module.running_var.uniform_(0.5, 2, generator=stream)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "size", "diagonals"),
    [
        # Post-activation: each batch-norm follows a convolution of its own.
        ("resnet18", 32, 0),
        ("resnet_small", 8, 0),
        # Pre-activation: the first batch-norm of a block follows a sum, except the very first,
        # which follows the stem, and that feeds nothing else because the first block widens.
        ("wrn28_2", 32, 12),
        ("wrn10_2", 8, 3),
        # Width 1: the first block keeps the shape, so the stem also feeds the shortcut.
        ("wrn10_1", 8, 4),
    ],
)
def test_folding_leaves_the_logits_unchanged(name: str, size: int, diagonals: int) -> None:
    model = with_random_statistics(
        build(name, num_classes=10, image_size=size, normalisation=((0.5,) * 3, (0.25,) * 3))
    )
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    folded = fold(model, images)
    with torch.no_grad():
        expected, found = model(images), folded.model(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.model.modules())
    assert sum(isinstance(layer.module, Diagonal) for layer in folded.maps) == diagonals
    kept = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(folded.maps) == len(kept) + diagonals


def test_the_model_itself_is_not_folded() -> None:
    model = with_random_statistics(build("wrn10_1", num_classes=10, image_size=8))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fold(model, torch.rand(2, 3, 8, 8))
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class SharedConvolution(nn.Module):
    """One convolution applied twice; folding the batch-norm into it would change the first use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(F.relu(self.conv(x))))
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits


def test_a_convolution_used_twice_is_not_folded_into() -> None:
    model = with_random_statistics(SharedConvolution())
    folded = fold(model, torch.rand(4, 3, 8, 8))
    kinds = [type(layer.module).__name__ for layer in folded.maps]
    assert kinds == ["Conv2d", "Conv2d", "Diagonal", "Linear"]


def test_bias_and_linear_layers_fold() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(180, 4)
    )
    tail = nn.BatchNorm1d(4)
    tail.running_mean.normal_()  # type: ignore[union-attr]
    model = with_random_statistics(nn.Sequential(model, tail)).eval()
    images = torch.rand(4, 3, 8, 8)
    folded = fold(model, images)
    assert [type(layer.module) for layer in folded.maps] == [nn.Conv2d, nn.Linear]
    torch.testing.assert_close(folded.model(images), model(images), rtol=1e-4, atol=1e-4)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 8, 2, stride=2)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.embed(x).flatten(2).transpose(1, 2))
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        mixed = (q @ k.transpose(1, 2) / 8**0.5).softmax(dim=-1) @ v
        logits: Tensor = self.head((tokens + mixed).mean(dim=1))
        return logits


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x if x.sum() > 0 else -x)
        return logits


class Gated(Branching):
    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x * x.sigmoid())
        return logits


@pytest.mark.parametrize(
    ("model", "shape", "reason"),
    [
        (Attention(), (1, 4, 4), "transpose is outside the known graphs"),
        (nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)), (4,), "LayerNorm is outside"),
        (Branching(), (4,), "no graph"),
        (Gated(), (4,), "sigmoid is outside"),
        (
            nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)),
            (4,),
            "keeps no running statistics",
        ),
    ],
)
def test_what_cannot_be_folded_says_why(
    model: nn.Module, shape: tuple[int, ...], reason: str
) -> None:
    with pytest.raises(Undefined, match=reason):
        fold(model.eval(), torch.rand(3, *shape))


def dense_matrix(module: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The matrix of a layer's linear part, column by column."""
    size = torch.Size(shape).numel()
    basis = torch.eye(size).view(size, *shape)
    with torch.no_grad():
        return (module(basis) - module(torch.zeros(1, *shape))).flatten(1).T.double()


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (3, 8, 8)),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), (3, 8, 8)),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (3, 7, 9)),
        (nn.Conv2d(4, 8, 3, groups=2, dilation=2), (4, 9, 9)),
        (nn.Conv2d(3, 5, 3, padding=1, padding_mode="circular"), (3, 6, 6)),
        (nn.Conv2d(3, 5, 2, padding="same"), (3, 6, 6)),
        (nn.Conv2d(6, 5, 1, stride=2), (6, 8, 8)),
        (nn.Linear(20, 30), (20,)),
        (Diagonal(torch.tensor([1.0, -3.0, 2.0]), torch.ones(3)), (3, 4, 4)),
    ],
    ids=str,
)
def test_operator_norm_is_the_largest_singular_value(
    module: nn.Module, shape: tuple[int, ...]
) -> None:
    (layer,) = linear_maps(module, torch.rand(1, *shape))
    expected = float(torch.linalg.matrix_norm(dense_matrix(module, shape), 2))
    assert spectral_norm(layer) == pytest.approx(expected, rel=1e-4)


def test_a_reshaped_kernel_has_another_norm() -> None:
    """Why the operator is used: the common shortcut is off by much more than rounding."""
    conv = nn.Conv2d(8, 8, 3, padding=1)
    (layer,) = linear_maps(conv, torch.rand(1, 8, 8, 8))
    reshaped = float(torch.linalg.matrix_norm(conv.weight.flatten(1), 2))
    assert spectral_norm(layer) > 1.3 * reshaped


def test_frobenius_norm_is_that_of_the_kernel() -> None:
    conv = nn.Conv2d(2, 3, 3)
    (layer,) = linear_maps(conv, torch.rand(1, 2, 8, 8))
    assert frobenius_norm(layer) == pytest.approx(float(conv.weight.detach().norm()), rel=1e-6)


def test_layers_are_listed_with_the_size_they_really_see() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.ReLU(), nn.Conv2d(2, 2, 3))
    shapes = [layer.input_shape for layer in linear_maps(model, torch.rand(1, 1, 11, 9))]
    assert shapes == [(1, 11, 9), (2, 5, 4)]
