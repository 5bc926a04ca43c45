"""Data sets by name, divided into train, selection, extra and test; uint8, on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from defenses.datasets import arrays, digits, fashion_mnist, image_folder, published
from defenses.datasets.data import (
    Data,
    DataCorrupt,
    DataMissing,
    Split,
    channel_statistics,
    shuffled,
    to_float,
)
from defenses.datasets.pseudo_labels import pseudo_labels
from defenses.datasets.source import Source
from defenses.spec import DatasetSpec, require, require_choice

__all__ = [
    "DATASETS",
    "Data",
    "DataCorrupt",
    "DataMissing",
    "Split",
    "fingerprint",
    "load",
    "to_float",
]

DATASETS: dict[str, Callable[[DatasetSpec, Path], Source]] = {
    "digits": digits.read,
    "fashion_mnist": fashion_mnist.read,
    "mnist": published.read_mnist,
    "cifar10": published.read_cifar10,
    "cifar100": published.read_cifar100,
    "svhn": published.read_svhn,
    "image_folder": image_folder.read,
    "npz": arrays.read,
}


def load(
    spec: DatasetSpec, *, extra_data: bool, cache: Path, device: torch.device | str = "cpu"
) -> Data:
    """The data set of ``spec``, on ``device``; with its extra images only if ``extra_data``.

    ``cache`` is a folder for what is decoded or computed once. Raises ``DataMissing`` naming the
    command that fetches what is not there, ``DataCorrupt`` naming an unreadable file, and
    ``ValueError`` for an unknown name or sizes the data set does not have.
    """
    data = _load_whole(spec, cache)
    if extra_data and data.extra is None:
        raise DataMissing(
            f"dataset {spec.name} has no extra data; give dataset.extra_path=<file of "
            "pseudo-labelled images, .pickle or .npz>, or dataset.extra_size=10000 to keep images "
            "of the training set aside for it"
        )
    return replace(data, extra=data.extra if extra_data else None).to(device)


def fingerprint(spec: DatasetSpec, cache: Path) -> str:
    """Hex digest of every image and label that ``spec`` gives, extra data included.

    Raises as ``load`` does.
    """
    return _load_whole(spec, cache).fingerprint


@lru_cache(maxsize=2)
def _load_whole(spec: DatasetSpec, cache: Path) -> Data:
    source = read_source(spec, cache)
    parts = divide(source, spec)
    extra = _extra(spec, parts, len(source.class_names), cache)
    everything = (parts.train, parts.selection, extra, parts.test)
    digests = [part.digest() if part is not None else "" for part in everything]
    return Data(
        name=spec.name,
        num_classes=len(source.class_names),
        class_names=source.class_names,
        train=parts.train,
        selection=parts.selection,
        extra=extra,
        test=parts.test,
        fingerprint=hashlib.sha256(" ".join(digests).encode()).hexdigest(),
        normalisation=channel_statistics(parts.train),
    )


def _extra(spec: DatasetSpec, parts: Parts, num_classes: int, cache: Path) -> Split | None:
    """The extra images as they are trained on: from a file, or kept aside and pseudo-labelled."""
    if spec.extra_path is not None:
        require(
            spec.extra_labels == "pseudo",
            "dataset.extra_labels=true needs images kept aside, not those of dataset.extra_path",
        )
        extra = arrays.read_extra(Path(spec.extra_path))
        if extra.images.shape[1:] != parts.train.images.shape[1:]:
            raise DataCorrupt(
                f"{spec.extra_path} has images {tuple(extra.images.shape[1:])}, but those of "
                f"{spec.name} are {tuple(parts.train.images.shape[1:])}"
            )
        if int(extra.labels.max()) >= num_classes:
            raise DataCorrupt(f"{spec.extra_path} has labels that {spec.name} does not have")
        return extra if spec.extra_size is None else extra[: spec.extra_size]
    if parts.extra is None or spec.extra_labels == "true":
        return parts.extra
    labels = pseudo_labels(parts.train, parts.extra, num_classes, cache)
    return Split(parts.extra.images, labels)


def read_source(spec: DatasetSpec, cache: Path) -> Source:
    """The undivided images of the data set called ``spec.name``."""
    require_choice("dataset.name", spec.name, tuple(DATASETS))
    return DATASETS[spec.name](spec, cache)


@dataclass(frozen=True)
class Parts:
    """The division of a source; ``extra`` (None: no such images) still has its true labels."""

    train: Split
    selection: Split
    extra: Split | None
    test: Split


def divide(source: Source, spec: DatasetSpec) -> Parts:
    """Selection, extra and train, in this order, from a fixed shuffle of the pool.

    Extra images are kept aside whether a training uses them or not, so that all trainings of a
    study share one base training set. ``ValueError`` if the sizes ask for more than there is.
    """
    pool, test = source.pool, source.test
    selection_size = spec.selection_size or source.selection_size
    extra_size = (spec.extra_size or source.extra_size) if spec.extra_path is None else 0
    rest = len(pool) - selection_size - extra_size
    require(
        rest >= (spec.train_size or 1),
        f"dataset {spec.name} has {len(pool)} training images: too few for "
        f"selection_size={selection_size}, extra_size={extra_size} and "
        f"train_size={spec.train_size or 1}",
    )
    require(
        len(test) >= (spec.test_size or 1),
        f"dataset {spec.name} has {len(test)} test images: too few for test_size={spec.test_size}",
    )
    order = shuffled(len(pool))
    held_out, aside, base = order.split([selection_size, extra_size, rest])
    return Parts(
        train=pool[base[: spec.train_size]],
        selection=pool[held_out],
        extra=pool[aside] if extra_size else None,
        test=test if spec.test_size is None else test[shuffled(len(test))[: spec.test_size]],
    )
