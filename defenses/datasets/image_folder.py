"""Any folder of pictures: ``train/<class>/...`` and ``test/<class>/...``, decoded once."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from defenses.datasets.data import DataCorrupt, DataMissing, Split
from defenses.datasets.source import Source
from defenses.files import atomic_file
from defenses.spec import DatasetSpec, require

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}


def read(spec: DatasetSpec, cache: Path) -> Source:
    """The pictures under ``dataset.path``; all of one square size, grey or colour as the first is.

    Decoded into one array file in the cache, which is used as long as the names, sizes and times
    of the pictures stay the same.
    """
    require(spec.path is not None, "dataset=image_folder needs dataset.path=<folder>")
    root = Path(str(spec.path))
    pictures = {part: _pictures(root, part) for part in ("train", "test")}
    names = sorted({path.parent.name for path in pictures["train"]})
    unknown = {path.parent.name for path in pictures["test"]} - set(names)
    if unknown:
        raise DataCorrupt(f"{root}/test has classes that train lacks: {', '.join(sorted(unknown))}")

    file = cache / "image_folders" / f"{_key(root, pictures)}.npz"
    if not file.exists():
        grey = _is_grey(pictures["train"][0])
        arrays = {part: _decode(paths, grey) for part, paths in pictures.items()}
        if arrays["train"].shape[1:] != arrays["test"].shape[1:]:
            raise DataCorrupt(f"{root}: train and test pictures have different sizes")
        with atomic_file(file) as target:
            np.savez(target, allow_pickle=False, **arrays)
    with np.load(file, allow_pickle=False) as stored:
        splits = {
            part: Split(
                torch.from_numpy(stored[part]),
                torch.tensor([names.index(path.parent.name) for path in paths]),
            )
            for part, paths in pictures.items()
        }
    return Source(pool=splits["train"], test=splits["test"], class_names=tuple(names))


def _pictures(root: Path, part: str) -> list[Path]:
    """The picture files of ``root/part/<class>/``, sorted."""
    folder = root / part
    if not folder.is_dir():
        raise DataMissing(
            f"{folder} is not there; dataset.path must be a folder with train/<class>/<pictures> "
            "and test/<class>/<pictures>"
        )
    found = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataMissing(f"{folder} has no pictures in <class>/ folders")
    return found


def _key(root: Path, pictures: dict[str, list[Path]]) -> str:
    """Digest of the folder's place and of every file's name, size and time."""
    content = hashlib.sha256(str(root.resolve()).encode())
    for part, paths in pictures.items():
        for path in paths:
            status = path.stat()
            name = f"{part}/{path.parent.name}/{path.name}"
            content.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return content.hexdigest()[:32]


def _is_grey(path: Path) -> bool:
    return _open(path).mode in ("1", "L", "I;16")


def _decode(paths: list[Path], grey: bool) -> NDArray[np.uint8]:
    """All pictures as one array ``(N, C, H, W)``."""
    size = _open(paths[0]).size

    def pixels(path: Path) -> NDArray[np.uint8]:
        picture = _open(path)
        if picture.size != size or size[0] != size[1]:
            raise DataCorrupt(
                f"{path} is {picture.size[0]}x{picture.size[1]}; all pictures must be square and "
                f"of one size (the first is {size[0]}x{size[1]})"
            )
        array = np.asarray(picture.convert("L" if grey else "RGB"), dtype=np.uint8)
        return array[None] if grey else array.transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(pixels, paths, chunksize=256)))


def _open(path: Path) -> Image.Image:
    """The decoded picture; ``DataCorrupt`` naming the file if it cannot be."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.copy()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataCorrupt(f"{path} is not a readable picture: {error}") from error
