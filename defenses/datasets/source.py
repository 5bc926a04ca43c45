"""What the reader of a data set returns: its images as published, not yet divided."""

from __future__ import annotations

from dataclasses import dataclass

from defenses.datasets.data import Split


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
