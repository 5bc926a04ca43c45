"""Sizes, shapes, starts and errors of the networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from defenses.architectures import ARCHITECTURES, Architecture, build, flops, parameter_count
from defenses.architectures.layers import start_uniform
from defenses.randomness import generator


@pytest.mark.parametrize(
    ("name", "millions"), [("resnet18", 11.17), ("wrn28_10", 36.48), ("wrn34_10", 46.16)]
)
def test_parameter_counts_are_the_usual_ones(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = ARCHITECTURES[name].make(10, 3)
    assert parameter_count(network) / 1e6 == pytest.approx(millions, abs=0.005)


def test_flops_are_those_of_the_literature() -> None:
    """Multiply-adds: 0.56 G for the CIFAR ResNet-18, 5.2 G for WRN-28-10 (its paper, table 1)."""
    assert flops("resnet18", 10, 3, 32) / 2e9 == pytest.approx(0.556, abs=0.002)
    assert flops("wrn28_10", 10, 3, 32) / 2e9 == pytest.approx(5.24, abs=0.02)


@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [
        ("resnet_small", 1, 8),
        ("resnet_medium", 1, 28),
        ("wrn10_1", 1, 8),
        ("wrn16_2", 3, 32),
        ("resnet18", 3, 32),
    ],
)
def test_logits_for_every_image(name: str, channels: int, size: int) -> None:
    model = build(name, num_classes=7, in_channels=channels, image_size=size)
    assert model(torch.rand(2, channels, size, size)).shape == (2, 7)


def test_every_number_of_a_network_needs_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(num_classes: int, in_channels: int) -> nn.Module:
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return nn.Sequential(
            nn.GroupNorm(1, in_channels), pooled, nn.Linear(in_channels, num_classes)
        )

    monkeypatch.setitem(ARCHITECTURES, "grouped", Architecture(make, start_uniform))
    with pytest.raises(ValueError, match=r"architecture=grouped: .* no value to 0.weight, 0.bias$"):
        build("grouped", num_classes=3)


def test_normalisation_is_the_first_layer_and_part_of_the_weights() -> None:
    options = {"num_classes": 10, "in_channels": 3}
    plain = build("resnet_small", **options).eval()
    normalised = build("resnet_small", **options, normalisation=((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    normalised.eval()
    x = torch.rand(2, 3, 8, 8, generator=generator("tests", "x"))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    torch.testing.assert_close(normalised(x), plain((x - mean) / std))
    plain.load_state_dict(normalised.state_dict())
    assert torch.equal(plain(x), normalised(x))


def test_weights_come_from_the_generator_alone() -> None:
    def weights(seed: int) -> torch.Tensor:
        model = build("wrn10_1", num_classes=10, generator=generator(seed, "weights"))
        return torch.cat([p.flatten() for p in model.parameters()])

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = weights(1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))
    assert first.isfinite().all()


def test_starts_have_the_published_spread() -> None:
    wide = build("wrn10_2", num_classes=10)
    convolution = [m for m in wide.modules() if isinstance(m, nn.Conv2d)][-2]
    assert convolution.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    post = build("resnet18", num_classes=10)
    convolution = [m for m in post.modules() if isinstance(m, nn.Conv2d)][-2]
    bound = (1 / convolution.weight[0].numel()) ** 0.5
    assert convolution.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)


@pytest.mark.parametrize("name", ["resnet19", "wrn29_10", "wrn4_1", "wrn28", "", "WRN28_10"])
def test_unknown_names_say_what_is_valid(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose one of: resnet18|depth must be"):
        build(name, num_classes=10)
    with pytest.raises(ValueError, match=r"2 means and 2 stds for 3 channels"):
        build("resnet18", num_classes=10, normalisation=((0.0, 0.0), (1.0, 1.0)))
