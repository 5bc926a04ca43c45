"""1,797 real handwritten digits of 8x8 pixels, embedded in scikit-learn: no download.

Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
1998, https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from defenses.datasets.data import Split, shuffled
from defenses.datasets.source import Published, Source
from defenses.spec import DatasetSpec

TEST_SIZE = 747
PUBLISHED = Published(  # 600 are left to train on
    1797 - TEST_SIZE, channels=1, image_size=8, selection_size=150, extra_size=300
)


def read(spec: DatasetSpec, cache: Path) -> Source:
    """The digits, 747 of them kept as test set. Their 17 grey levels are stretched to 0..255."""
    from sklearn.datasets import load_digits  # half a second that other data sets need not wait

    pixels, labels = load_digits(return_X_y=True)
    grey = np.rint(pixels.reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    digits = Split(torch.from_numpy(grey), torch.from_numpy(labels.astype(np.int64)))
    order = shuffled(len(digits))
    return Source(
        pool=digits[order[TEST_SIZE:]],
        test=digits[order[:TEST_SIZE]],
        class_names=tuple("0123456789"),
        selection_size=PUBLISHED.selection_size,
        extra_size=PUBLISHED.extra_size,
    )
