"""Data sets that torchvision knows: CIFAR-10, CIFAR-100, SVHN and MNIST.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009; Netzer et al., "Reading
Digits in Natural Images with Unsupervised Feature Learning", 2011; LeCun, Cortes & Burges, MNIST.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch

from defenses.datasets.data import DataCorrupt, DataMissing, Split
from defenses.datasets.source import Published, Source
from defenses.spec import DatasetSpec

LOCK = ".lock"  # two jobs must not download into one file
PUBLISHED = {
    "cifar10": Published(50_000),
    "cifar100": Published(50_000, num_classes=100),
    "mnist": Published(60_000, channels=1, image_size=28),
    "svhn": Published(73_257),
}
Opener = Callable[[str, bool, bool], Any]  # (root, train, download) -> torchvision's data set


def read_cifar10(spec: DatasetSpec, cache: Path) -> Source:
    """50,000 + 10,000 photographs of 10 classes, 32x32."""
    from torchvision.datasets import CIFAR10

    return _read(spec, cache, lambda root, train, get: CIFAR10(root, train, download=get))


def read_cifar100(spec: DatasetSpec, cache: Path) -> Source:
    """50,000 + 10,000 photographs of 100 classes, 32x32."""
    from torchvision.datasets import CIFAR100

    return _read(spec, cache, lambda root, train, get: CIFAR100(root, train, download=get))


def read_mnist(spec: DatasetSpec, cache: Path) -> Source:
    """60,000 + 10,000 handwritten digits, 28x28."""
    from torchvision.datasets import MNIST

    return _read(spec, cache, lambda root, train, get: MNIST(root, train, download=get))


def read_svhn(spec: DatasetSpec, cache: Path) -> Source:
    """73,257 + 26,032 photographed house numbers, 32x32."""
    from torchvision.datasets import SVHN

    def opener(root: str, train: bool, get: bool) -> Any:
        return SVHN(root, "train" if train else "test", download=get)

    return _read(spec, cache, opener)


def _read(spec: DatasetSpec, cache: Path, opener: Opener) -> Source:
    """Both parts, from ``dataset.path`` or the cache; downloaded only if the spec says so."""
    root = Path(spec.path) if spec.path is not None else cache / "downloads" / spec.name
    train = _open(spec, root, opener, train=True)
    test = _open(spec, root, opener, train=False)
    names = getattr(train, "classes", None) or [str(digit) for digit in range(10)]
    return Source(pool=_split(train), test=_split(test), class_names=tuple(names))


def _open(spec: DatasetSpec, root: Path, opener: Opener, *, train: bool) -> Any:
    try:
        if not spec.download:
            return opener(str(root), train, False)
        root.mkdir(parents=True, exist_ok=True)
        with (root / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return opener(str(root), train, True)
    except URLError as error:
        raise DataMissing(f"{spec.name} could not be downloaded: {error.reason}") from error
    except RuntimeError as error:  # torchvision: files are missing or their checksum is wrong
        if "not found or corrupted" not in str(error) and "Dataset not found" not in str(error):
            raise
        there = root.is_dir() and any(path.name != LOCK for path in root.iterdir())
        kind = DataCorrupt if there else DataMissing
        raise kind(
            f"{spec.name} is not complete in {root}; fetch it with `python -m sweep prepare "
            f"dataset={spec.name}`, or give its folder as dataset.path="
        ) from None


def _split(part: Any) -> Split:
    """torchvision keeps images as (N, H, W), (N, H, W, C) or, for SVHN, (N, C, H, W)."""
    images = np.asarray(part.data)
    if images.ndim == 3:
        images = images[:, None]
    elif images.shape[-1] == 3:
        images = images.transpose(0, 3, 1, 2)
    labels = np.asarray(part.labels if hasattr(part, "labels") else part.targets)
    return Split(
        torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64))
    )
