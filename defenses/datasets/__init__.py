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
from defenses.datasets.source import Published, Source
from defenses.spec import DatasetSpec, require, require_choice

__all__ = [
    "DATASETS",
    "Data",
    "DataCorrupt",
    "DataMissing",
    "Published",
    "Split",
    "expected",
    "expected_train_size",
    "load",
    "to_float",
]

# Each with its reader, and what is known of it before its files are there.
DATASETS: dict[str, tuple[Callable[[DatasetSpec, Path], Source], Published]] = {
    "digits": (digits.read, digits.PUBLISHED),
    "fashion_mnist": (fashion_mnist.read, fashion_mnist.PUBLISHED),
    "mnist": (published.read_mnist, published.PUBLISHED["mnist"]),
    "cifar10": (published.read_cifar10, published.PUBLISHED["cifar10"]),
    "cifar100": (published.read_cifar100, published.PUBLISHED["cifar100"]),
    "svhn": (published.read_svhn, published.PUBLISHED["svhn"]),
    "image_folder": (image_folder.read, Published()),
    "imagenet": (imagenet.read, imagenet.PUBLISHED),
    "npz": (arrays.read, Published()),
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


def expected(spec: DatasetSpec) -> Published:
    """What is known of the data set called ``spec.name`` before its files are there."""
    require_choice("dataset.name", spec.name, tuple(DATASETS))
    return DATASETS[spec.name][1]


def expected_train_size(spec: DatasetSpec) -> int:
    """Images in the base training set once the files are there; 0 where only they can tell."""
    known = expected(spec)
    if spec.train_size is not None or known.base_size is not None:
        return spec.train_size or known.base_size or 0
    return max(known.images - sum(_taken(spec, known)), 0)


def _taken(spec: DatasetSpec, defaults: Source | Published) -> tuple[int, int]:
    """How many images of the pool are (held out for selection, kept aside as extra data)."""
    held_out = spec.selection_size or defaults.selection_size
    aside = (spec.extra_size or defaults.extra_size) if spec.extra_path is None else 0
    if defaults.extra_size:
        held_out = max(held_out, defaults.selection_size)
        aside = max(aside, defaults.extra_size)
    return held_out, aside


def read_source(spec: DatasetSpec, cache: Path) -> Source:
    """The undivided images of the data set called ``spec.name``."""
    require_choice("dataset.name", spec.name, tuple(DATASETS))
    read, _ = DATASETS[spec.name]
    return read(spec, cache)


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
    held_out, aside = _taken(spec, source)
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
