"""A data set as published: what is known without its files, and what its reader returns."""

from __future__ import annotations

from dataclasses import dataclass

from defenses.datasets.data import Split


@dataclass(frozen=True)
class Published:
    """What is known of a data set without its files: for planning before they are there.

    ``images`` in the published training set (0: only the files can tell), of which
    ``selection_size`` are held out and ``extra_size`` kept aside unless the specification says
    otherwise. ``base_size``: None: all others are trained on; else so many, whatever is held out.
    The shape of an image and the number of classes are a guess where only the files can tell.
    """

    images: int = 0
    channels: int = 3
    image_size: int = 32
    num_classes: int = 10
    selection_size: int = 1000
    extra_size: int = 0
    base_size: int | None = None


@dataclass(frozen=True)
class Source:
    """``pool`` is the published training set, from which all but ``test`` are taken.

    ``selection_size`` and ``extra_size`` are the data set's defaults: how many images of the pool
    are held out to choose the best epoch, and how many are kept aside as extra data (0: extra
    data comes from a file, or not at all).
    """

    pool: Split
    test: Split
    class_names: tuple[str, ...]
    selection_size: int = 1000
    extra_size: int = 0
