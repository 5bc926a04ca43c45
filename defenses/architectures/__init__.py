"""Networks by name. Images in [0, 1] go in, logits come out; normalisation is the first layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defenses.architectures.layers import Normalisation, Normalise, start_normal, start_uniform
from defenses.architectures.resnet import ResNet
from defenses.architectures.wideresnet import WideResNet, require_size
from defenses.randomness import generator as named_generator
from defenses.spec import require

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Normalisation",
    "architecture",
    "build",
    "flops",
    "parameter_count",
]


@dataclass(frozen=True)
class Architecture:
    """How a network is made and how its weights start.

    ``definition`` enters the ids of trainings: raise it when a correction changes results.
    """

    make: Callable[[int, int], nn.Module]  # (num_classes, in_channels)
    start: Callable[[nn.Module, torch.Generator], None]
    definition: int = 1


def _resnet(blocks: tuple[int, ...], widths: tuple[int, ...], stem_stride: int = 1) -> Architecture:
    def make(num_classes: int, in_channels: int) -> nn.Module:
        return ResNet(
            blocks,
            widths,
            num_classes=num_classes,
            in_channels=in_channels,
            stem_stride=stem_stride,
        )

    return Architecture(make, start_uniform)


def _wrn(depth: int, widen: int, stem_stride: int = 1) -> Architecture:
    def make(num_classes: int, in_channels: int) -> nn.Module:
        return WideResNet(
            depth, widen, num_classes=num_classes, in_channels=in_channels, stem_stride=stem_stride
        )

    return Architecture(make, start_normal)


ARCHITECTURES: dict[str, Architecture] = {
    "resnet18": _resnet((2, 2, 2, 2), (64, 128, 256, 512)),
    "resnet_small": _resnet((1, 1), (16, 32), stem_stride=2),  # for images of 8x8
    "resnet_medium": _resnet((1, 1, 1), (16, 32, 64), stem_stride=2),  # for images of 28x28
    "wrn10_small": _wrn(10, 1, stem_stride=2),
    "wrn16_small": _wrn(16, 1, stem_stride=2),
    "wrn10_1": _wrn(10, 1),
    "wrn10_2": _wrn(10, 2),
    "wrn28_10": _wrn(28, 10),
    "wrn34_10": _wrn(34, 10),
}


def architecture(name: str) -> Architecture:
    """The architecture called ``name``: one of ``ARCHITECTURES`` or any ``wrn<depth>_<width>``.

    ``ValueError`` naming the valid ones otherwise.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    wide = re.fullmatch(r"wrn(\d+)_(\d+)", name)
    require(
        wide is not None,
        f"architecture={name!r} is not valid; choose one of: {', '.join(ARCHITECTURES)}, "
        "or wrn<depth>_<width>",
    )
    assert wide is not None
    depth, widen = int(wide[1]), int(wide[2])
    require_size(depth, widen)
    return _wrn(depth, widen)


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: int = 32,
    normalisation: Normalisation | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A new network on the CPU for images ``(N, in_channels, image_size, image_size)`` in [0, 1].

    ``normalisation`` is the mean and std per channel that the first layer applies; None: mean 0,
    std 1. The initial weights are drawn from ``generator`` (on the CPU); None: a fixed stream of
    the architecture's own. ``ValueError`` for an unknown name or an image too small for it.
    """
    chosen = architecture(name)
    require(image_size >= 4, f"image_size={image_size}: the networks need at least 4")
    mean, std = normalisation or ((0.0,) * in_channels, (1.0,) * in_channels)
    require(
        len(mean) == len(std) == in_channels,
        f"normalisation has {len(mean)} means and {len(std)} stds for {in_channels} channels",
    )
    with torch.device("meta"):  # no memory, and no draws from the global generator
        network = chosen.make(num_classes, in_channels)
    network.to_empty(device="cpu")
    tensors = dict(_tensors(network))
    with torch.no_grad():  # nothing is left to what happened to be in memory
        for tensor in tensors.values():
            tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
    chosen.start(network, generator or named_generator(name, "initial weights"))
    if unstarted := [k for k, t in tensors.items() if bool(t.isnan().any())]:
        raise ValueError(
            f"architecture={name}: its start function gives no value to {', '.join(unstarted)}"
        )
    return nn.Sequential(Normalise(mean, std), network)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


def parameter_count(model: nn.Module) -> int:
    """Number of trainable numbers."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def flops(name: str, num_classes: int, in_channels: int, image_size: int) -> int:
    """Floating-point operations of one image's forward pass (a multiply-add counts as two).

    Those of convolutions and linear layers, which are all but a percent. A backward pass to the
    weights and on costs twice as much, one to the image alone once. ``ValueError`` for an unknown
    name.
    """
    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        total += 2 * output.numel() * (weight.numel() // weight.shape[0])

    with torch.device("meta"):
        network = architecture(name).make(num_classes, in_channels).eval()
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.register_forward_hook(count)
        with torch.no_grad():
            network(torch.zeros(1, in_channels, image_size, image_size))
    return total
