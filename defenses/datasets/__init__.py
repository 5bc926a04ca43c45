"""Data sets by name, divided into train, selection, extra and test; uint8, on the device."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from defenses.datasets import arrays, digits, fashion_mnist, image_folder, imagenet, published
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
    "expected_train_size",
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
    "imagenet": imagenet.read,
    "npz": arrays.read,
}

# How many training images each has as published: for planning before the files are there.
PUBLISHED_IMAGES = {
    "mnist": 60_000,
    "fashion_mnist": 60_000,
    "cifar10": 50_000,
    "cifar100": 50_000,
    "svhn": 73_257,
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
    if not extra_data:
        data = replace(data, extra=None)
    return replace(data, fingerprint=_fingerprint(data)).to(device)


def _fingerprint(data: Data) -> str:
    splits = (data.train, data.selection, data.extra, data.test)
    digests = [split.digest() if split is not None else "" for split in splits]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


@lru_cache(maxsize=2)
def _load_whole(spec: DatasetSpec, cache: Path) -> Data:
    source = read_source(spec, cache)
    parts = divide(source, spec)
    num_classes = len(source.class_names)
    extra = _extra(spec, parts, num_classes, cache)
    train = parts.base[: spec.train_size]
    selection = parts.selection[: spec.selection_size]
    return Data(
        name=spec.name,
        num_classes=num_classes,
        class_names=source.class_names,
        train=train,
        selection=selection,
        extra=extra,
        test=parts.test,
        fingerprint="",  # of what is used: see load
        normalisation=channel_statistics(train),
    )


def _extra(spec: DatasetSpec, parts: Parts, num_classes: int, cache: Path) -> Split | None:
    """The extra images as they are trained on: from a file, or kept aside and pseudo-labelled."""
    if spec.extra_path is not None:
        require(
            spec.extra_labels == "pseudo",
            "dataset.extra_labels=true needs images kept aside, not those of dataset.extra_path",
        )
        extra = arrays.read_extra(Path(spec.extra_path))
        if extra.images.shape[1:] != parts.base.images.shape[1:]:
            raise DataCorrupt(
                f"{spec.extra_path} has images {tuple(extra.images.shape[1:])}, but those of "
                f"{spec.name} are {tuple(parts.base.images.shape[1:])}"
            )
        if int(extra.labels.max()) >= num_classes:
            raise DataCorrupt(f"{spec.extra_path} has labels that {spec.name} does not have")
        require(
            len(extra) >= (spec.extra_size or 1),
            f"{spec.extra_path} has {len(extra)} images: too few for extra_size={spec.extra_size}",
        )
    elif parts.aside is None:
        return None
    elif spec.extra_labels == "true":
        extra = parts.aside
    else:
        labels = pseudo_labels(parts.base, parts.aside, num_classes, cache)
        extra = Split(parts.aside.images, labels)
    return extra[: spec.extra_size]


def expected_train_size(spec: DatasetSpec) -> int:
    """Images in the base training set once the files are there; 0 where only they can tell."""
    if spec.train_size is not None:
        return spec.train_size
    if spec.name == "imagenet":
        return imagenet.SIZE
    kept_aside = fashion_mnist.EXTRA_SIZE if spec.name == "fashion_mnist" else 0
    aside = (spec.selection_size or 1000) + max(spec.extra_size or 0, kept_aside)
    return max(PUBLISHED_IMAGES.get(spec.name, 0) - aside, 0)


def read_source(spec: DatasetSpec, cache: Path) -> Source:
    """The undivided images of the data set called ``spec.name``."""
    require_choice("dataset.name", spec.name, tuple(DATASETS))
    return DATASETS[spec.name](spec, cache)


@dataclass(frozen=True)
class Parts:
    """The division of a source, of which a training may use only the first images of each part.

    ``aside`` (None: no such images) are to be extra data, here still with their true labels.
    """

    base: Split
    selection: Split
    aside: Split | None
    test: Split


def divide(source: Source, spec: DatasetSpec) -> Parts:
    """Selection, aside and base, in this order, from a fixed shuffle of the pool.

    Images are kept aside whether a training uses them or not, so that all trainings of a study
    share one base training set. Where a data set has its own division, asking for fewer images
    does not change it (its shipped pseudo-labels stay valid). ``ValueError`` if the sizes ask for
    more than there is.
    """
    pool, test = source.pool, source.test
    held_out = spec.selection_size or source.selection_size
    aside = (spec.extra_size or source.extra_size) if spec.extra_path is None else 0
    if source.extra_size:
        held_out, aside = max(held_out, source.selection_size), max(aside, source.extra_size)
    rest = len(pool) - held_out - aside
    require(
        rest >= (spec.train_size or 1),
        f"dataset {spec.name} has {len(pool)} training images: too few for "
        f"selection_size={held_out}, extra_size={aside} and train_size={spec.train_size or 1}",
    )
    require(
        len(test) >= (spec.test_size or 1),
        f"dataset {spec.name} has {len(test)} test images: too few for test_size={spec.test_size}",
    )
    first, second, third = shuffled(len(pool)).split([held_out, aside, rest])
    return Parts(
        base=pool[third],
        selection=pool[first],
        aside=pool[second] if aside else None,
        test=test if spec.test_size is None else test[shuffled(len(test))[: spec.test_size]],
    )
