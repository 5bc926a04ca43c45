"""Any folder of pictures: ``train/<class>/...`` and ``test/<class>/...``, decoded once."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
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
    pictures = {part: find_pictures(root, part) for part in ("train", "test")}
    names = class_names(root, pictures)

    @functools.cache
    def mode() -> str:  # only asked where the cache does not know
        return "L" if open_picture(pictures["train"][0]).mode in ("1", "L", "I;16") else "RGB"

    splits = read_parts(root, pictures, names, cache, lambda picture: picture.convert(mode()))
    return Source(pool=splits["train"], test=splits["test"], class_names=names)


def class_names(root: Path, pictures: dict[str, list[Path]]) -> tuple[str, ...]:
    """The folders of train, sorted. ``DataCorrupt`` if another part has classes beyond them."""
    names = sorted({path.parent.name for path in pictures["train"]})
    for part, paths in pictures.items():
        surplus = {path.parent.name for path in paths} - set(names)
        if surplus:
            raise DataCorrupt(
                f"{root}/{part} has classes that train lacks: {', '.join(sorted(surplus))}"
            )
    return tuple(names)


def read_parts(
    root: Path,
    pictures: dict[str, list[Path]],
    names: Sequence[str],
    cache: Path,
    prepared: Callable[[Image.Image], Image.Image],
    *,
    key: str = "",
) -> dict[str, Split]:
    """The pictures of each part as a split, decoded and ``prepared`` once, then from the cache.

    ``key`` tells ways of preparing apart. ``DataCorrupt`` names a picture that cannot be read or
    has another size than the first.
    """
    file = cache / "image_folders" / f"{_key(root, pictures, key)}.npz"
    if not file.exists():
        arrays = {part: _decode(paths, prepared) for part, paths in pictures.items()}
        if len({array.shape[1:] for array in arrays.values()}) > 1:
            raise DataCorrupt(f"{root}: {' and '.join(arrays)} pictures have different sizes")
        with atomic_file(file) as target:
            np.savez(target, allow_pickle=False, **arrays)
    number = {name: index for index, name in enumerate(names)}
    with np.load(file, allow_pickle=False) as stored:
        return {
            part: Split(
                torch.from_numpy(stored[part]),
                torch.tensor([number[path.parent.name] for path in paths]),
            )
            for part, paths in pictures.items()
        }


def find_pictures(root: Path, part: str) -> list[Path]:
    """The picture files of ``root/part/<class>/``, sorted. ``DataMissing`` if there are none."""
    folder = root / part
    if not folder.is_dir():
        raise DataMissing(
            f"{folder} is not there; dataset.path must be a folder with {part}/<class>/<pictures>"
        )
    found = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
    if not found:
        raise DataMissing(f"{folder} has no pictures in <class>/ folders")
    return found


def _key(root: Path, pictures: dict[str, list[Path]], key: str) -> str:
    """Digest of the folder's place and of every file's name, size and time; and of ``key``."""
    content = hashlib.sha256(f"{root.resolve()}{key}".encode())
    for part, paths in pictures.items():
        for path in paths:
            status = path.stat()
            name = f"{part}/{path.parent.name}/{path.name}"
            content.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return content.hexdigest()[:32]


def _decode(paths: list[Path], prepared: Callable[[Image.Image], Image.Image]) -> NDArray[np.uint8]:
    """All pictures as one array ``(N, C, H, W)``."""
    size = prepared(open_picture(paths[0])).size

    def pixels(path: Path) -> NDArray[np.uint8]:
        picture = prepared(open_picture(path))
        if picture.size != size or size[0] != size[1]:
            raise DataCorrupt(
                f"{path} is {picture.size[0]}x{picture.size[1]}; all pictures must be square and "
                f"of one size (the first is {size[0]}x{size[1]})"
            )
        array = np.asarray(picture, dtype=np.uint8)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        return np.stack(list(pool.map(pixels, paths, chunksize=256)))


def open_picture(path: Path) -> Image.Image:
    """The decoded picture; ``DataCorrupt`` naming the file if it cannot be."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.copy()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataCorrupt(f"{path} is not a readable picture: {error}") from error
