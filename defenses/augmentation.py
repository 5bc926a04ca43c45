"""Augmentation as a function of a batch, on the device where the images are."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Crops(NamedTuple):
    """Where each image is cropped from its padded self, ``(N,)`` each, and whether mirrored."""

    top: Tensor
    left: Tensor
    mirrored: Tensor


def random_crops(count: int, padding: int, *, flip: bool, generator: torch.Generator) -> Crops:
    """Uniform crops for ``count`` images; mirrored with probability 1/2 if ``flip``. On the CPU."""
    top, left = torch.randint(2 * padding + 1, (2, count), generator=generator)
    coin = torch.rand(count, generator=generator) < 0.5
    return Crops(top, left, coin & flip)


def crop_and_flip(images: Tensor, crops: Crops, padding: int) -> Tensor:
    """Each image ``(C, H, W)`` zero-padded on all sides, cropped back to its size, and mirrored.

    One gather does it all: pixel (i, j) of the result is pixel (top + i, left + j') of the padded
    image, with j' counted from the right where mirrored.
    """
    count, channels, height, width = images.shape
    padded = F.pad(images, (padding, padding, padding, padding)).flatten(2)
    rows = crops.top[:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device).expand(count, width)
    columns = torch.where(crops.mirrored[:, None], width - 1 - columns, columns)
    columns = crops.left[:, None] + columns
    pixel = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    source = pixel.view(count, 1, height * width).expand(-1, channels, -1)
    return padded.gather(2, source).view_as(images)
