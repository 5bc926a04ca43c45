"""Fashion-MNIST: 70,000 pictures of clothes, 28x28, in the idx files of MNIST.

Xiao, Rasul & Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", 2017, https://arxiv.org/abs/1708.07747. Debian has it as dataset-fashion-mnist.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from defenses.datasets.data import DataCorrupt, DataMissing, Split
from defenses.datasets.source import Published, Source
from defenses.spec import DatasetSpec

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
PUBLISHED = Published(60_000, channels=1, image_size=28, extra_size=10_000)


def read(spec: DatasetSpec, cache: Path) -> Source:
    """The four idx files of ``dataset.path`` (None: where Debian's package puts them)."""
    folder = Path(spec.path) if spec.path is not None else DEBIAN
    return Source(
        pool=_split(folder, "train"),
        test=_split(folder, "t10k"),
        class_names=CLASSES,
        extra_size=PUBLISHED.extra_size,
    )


def _split(folder: Path, name: str) -> Split:
    images = read_idx(folder / f"{name}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataCorrupt(f"{folder}: {name} has images {images.shape} and labels {labels.shape}")
    return Split(torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64)))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of bytes in a gzipped idx file: magic number, sizes (big-endian), data.

    Raises ``DataMissing`` or ``DataCorrupt``.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DataMissing(
            f"{path} is not there; install it with `apt-get install dataset-fashion-mnist`, or "
            "give the folder of the four idx files as dataset.path=<folder>"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataCorrupt(f"{path} cannot be unpacked: {error}") from error
    zeros, kind, rank = struct.unpack(">HBB", content[:4])
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    if zeros != 0 or kind != 8 or len(content) != 4 + 4 * rank + int(np.prod(shape)):
        raise DataCorrupt(f"{path} is not a complete idx file of bytes")
    return np.frombuffer(bytearray(content), np.uint8, offset=4 + 4 * rank).reshape(shape)
