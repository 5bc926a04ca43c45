"""What the networks share: the normalisation layer, pooling and the way weights start."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and std of each channel


class Normalise(nn.Module):
    """(x - mean) / std per channel: the first layer of every model, so that attacks see [0, 1].

    Mean and std are buffers: a stored model carries the normalisation it was trained with.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)


def conv1x1(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False)


def pool(x: Tensor) -> Tensor:
    """Global average, ``(N, C, H, W)`` to ``(N, C)``, for images of any size.

    A mean rather than adaptive pooling, whose backward pass is not deterministic on a GPU.
    """
    return x.mean(dim=(2, 3))


@torch.no_grad()
def start_uniform(network: nn.Module, generator: torch.Generator) -> None:
    """PyTorch's own start: uniform within 1 / sqrt(fan_in) for weights and biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


@torch.no_grad()
def start_normal(network: nn.Module, generator: torch.Generator) -> None:
    """Wide ResNet's start: convolutions normal with std sqrt(2 / (k k channels_out)), biases 0."""
    start_uniform(network, generator)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            module.weight.normal_(0, math.sqrt(2 / fan_out), generator=generator)
        elif isinstance(module, nn.Linear):
            module.bias.zero_()
