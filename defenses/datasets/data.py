"""What a data set is, once loaded: four disjoint sets of uint8 images that stay on the device."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from defenses.architectures.layers import Normalisation


class DataMissing(ValueError):
    """Files are not there; the message names them and the command that fetches them."""


class DataCorrupt(ValueError):
    """A file is there but cannot be read; the message names it."""


@dataclass(frozen=True)
class Split:
    """``images`` uint8 ``(N, C, H, W)`` and their ``labels`` int64 ``(N,)``."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8
        assert self.images.ndim == 4
        assert self.labels.dtype == torch.int64
        assert self.labels.shape == self.images.shape[:1]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Split:
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device | str) -> Split:
        return Split(self.images.to(device), self.labels.to(device))

    def digest(self) -> str:
        """SHA-256 of shape and content, hex: the same on every machine."""
        content = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        content.update(self.images.cpu().contiguous().numpy().data)
        content.update(self.labels.cpu().contiguous().numpy().data)
        return content.hexdigest()


@dataclass(frozen=True)
class Data:
    """A data set, divided.

    ``train`` is the base training set: what "train accuracy" and every measure refer to. It never
    holds ``extra`` images (labelled by a fixed standard net unless the spec says otherwise;
    None: not asked for) nor those of ``selection``, on which the best epoch is chosen.
    ``fingerprint`` (hex) changes with any image or label; ``normalisation`` is that of ``train``.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    train: Split
    selection: Split
    extra: Split | None
    test: Split
    fingerprint: str
    normalisation: Normalisation

    @property
    def in_channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Height in pixels (images are square)."""
        return self.train.images.shape[2]

    def to(self, device: torch.device | str) -> Data:
        """The same data with all images on ``device``."""
        return replace(
            self,
            train=self.train.to(device),
            selection=self.selection.to(device),
            extra=None if self.extra is None else self.extra.to(device),
            test=self.test.to(device),
        )


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1], as models expect them."""
    return images.float().div_(255)


def shuffled(count: int) -> Tensor:
    """A fixed permutation of ``range(count)``: by SHA-256 of the index.

    Unlike a generator's, it can never change with a library or a machine.
    """
    keys = [hashlib.sha256(str(index).encode()).digest() for index in range(count)]
    return torch.tensor(sorted(range(count), key=keys.__getitem__), dtype=torch.int64)


def channel_statistics(split: Split) -> Normalisation:
    """Mean and std of each channel, of images in [0, 1], rounded to four digits.

    From integer counts of the pixel values, so that they do not depend on the order of summing.
    """
    mean, std = [], []
    levels = np.arange(256) / 255
    for channel in split.images.cpu().numpy().swapaxes(0, 1):
        share = np.bincount(channel.ravel(), minlength=256) / channel.size
        centre = float(share @ levels)
        mean.append(round(centre, 4))
        std.append(max(round(float(np.sqrt(share @ (levels - centre) ** 2)), 4), 1e-4))
    return tuple(mean), tuple(std)
