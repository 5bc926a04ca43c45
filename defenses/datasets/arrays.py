"""Images in array files: whole data sets as ``.npz``, and files of extra images.

Nothing that is read here can run code: ``.npz`` without pickled objects, and pickles through a
loader that knows NumPy arrays and nothing else.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from defenses.datasets.data import DataCorrupt, DataMissing, Split
from defenses.datasets.source import Source
from defenses.spec import DatasetSpec, require

ARRAYS = ("x_train", "y_train", "x_test", "y_test")
# (images, labels) in files of extra data: Carmon et al.'s pickle, Gowal et al.'s npz
EXTRA_NAMES = (("data", "extrapolated_targets"), ("image", "label"))
HARMLESS = {
    *((module, "_reconstruct") for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    *((module, "scalar") for module in ("numpy.core.multiarray", "numpy._core.multiarray")),
    *((module, "_frombuffer") for module in ("numpy.core.numeric", "numpy._core.numeric")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),  # how protocol 2 writes bytes
}


def read(spec: DatasetSpec, cache: Path) -> Source:
    """``dataset.path``: an ``.npz`` with x_train, y_train, x_test, y_test.

    Images uint8 ``(N, H, W)`` or ``(N, H, W, C)``, labels whole numbers from 0.
    """
    require(spec.path is not None, "dataset=npz needs dataset.path=<file.npz>")
    path = Path(str(spec.path))
    arrays = _load_npz(path)
    if not set(ARRAYS) <= set(arrays):
        raise DataCorrupt(f"{path} has arrays {sorted(arrays)}, but needs {', '.join(ARRAYS)}")
    train = as_split(path, arrays["x_train"], arrays["y_train"])
    test = as_split(path, arrays["x_test"], arrays["y_test"])
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataCorrupt(f"{path}: train and test images have different shapes")
    num_classes = int(max(train.labels.max(), test.labels.max())) + 1
    return Source(pool=train, test=test, class_names=tuple(map(str, range(num_classes))))


def read_extra(path: Path) -> Split:
    """Extra images with their pseudo-labels, from a ``.pickle`` or ``.npz`` file.

    Raises ``DataMissing``, or ``DataCorrupt`` for what is not a dictionary of such arrays.
    """
    arrays = _load_npz(path) if path.suffix == ".npz" else _load_pickle(path)
    for images, labels in EXTRA_NAMES:
        if images in arrays and labels in arrays:
            return as_split(path, np.asarray(arrays[images]), np.asarray(arrays[labels]))
    wanted = " or ".join("+".join(names) for names in EXTRA_NAMES)
    raise DataCorrupt(f"{path} has arrays {sorted(map(str, arrays))}, but needs {wanted}")


def as_split(path: Path, images: NDArray[Any], labels: NDArray[Any]) -> Split:
    """uint8 images ``(N, H, W[, C])``, H = W, and whole labels ``(N,)`` as a split."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.shape[1] != images.shape[2]:
        raise DataCorrupt(
            f"{path}: images are {images.dtype} {images.shape}, but must be uint8 (N, H, H[, C])"
        )
    labels = labels.squeeze()
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise DataCorrupt(f"{path}: labels are {labels.dtype} {labels.shape} for {len(images)}")
    if labels.min() < 0:
        raise DataCorrupt(f"{path}: there are negative labels")
    channels_first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Split(
        torch.from_numpy(np.ascontiguousarray(channels_first)),
        torch.from_numpy(labels.astype(np.int64)),
    )


def _load_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError:
        raise DataMissing(f"{path} is not there") from None
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError, TypeError) as error:
        raise DataCorrupt(f"{path} is not a readable .npz file of arrays: {error}") from error


class _ArraysOnly(pickle.Unpickler):
    """Refuses every global that is not needed to rebuild a NumPy array."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, which is not an array")
        return super().find_class(module, name)


def _load_pickle(path: Path) -> dict[Any, Any]:
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file).load()
    except FileNotFoundError:
        raise DataMissing(f"{path} is not there") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, IndexError) as error:
        raise DataCorrupt(f"{path} is not a pickle of arrays: {error}") from error
    if not isinstance(content, dict):
        raise DataCorrupt(f"{path} holds a {type(content).__name__}, not a dictionary of arrays")
    return content
