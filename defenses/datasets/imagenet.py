"""A fixed part of ImageNet, brought to one size as RobustBench's models want it.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015,
https://arxiv.org/abs/1409.0575. The whole of it fits no memory: 5,000 photographs are drawn from
each of train and val unless the specification asks for another number.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from defenses.datasets.data import DataMissing, shuffled
from defenses.datasets.image_folder import class_names, find_pictures, read_parts
from defenses.datasets.source import Published, Source
from defenses.spec import DatasetSpec

SIZE = 5000  # photographs of train and of val, unless asked for
SELECTION_SIZE = 500
PUBLISHED = Published(
    1_281_167, image_size=224, num_classes=1000, selection_size=SELECTION_SIZE, base_size=SIZE
)
PREPROCESSINGS = {
    "Res256Crop224": Compose([Resize(256), CenterCrop(224)]),
    "BicubicRes256Crop224": Compose([Resize(256, InterpolationMode.BICUBIC), CenterCrop(224)]),
    "Crop288": CenterCrop(288),
    "Res224": Resize([224, 224]),
}


def read(spec: DatasetSpec, cache: Path) -> Source:
    """``dataset.path``: a folder with ``train/<class>/*`` and ``val/<class>/*``.

    Decoded once into the cache. ``DataMissing`` if it is not there: nobody may pass it on.
    """
    if spec.path is None:
        raise DataMissing(
            "imagenet cannot be downloaded for you; give dataset.path=<folder> with "
            "train/<class>/*.JPEG and val/<class>/*.JPEG"
        )
    root = Path(spec.path)
    pictures = {part: find_pictures(root, part) for part in ("train", "val")}
    names = class_names(root, pictures)
    held_out = (spec.selection_size or SELECTION_SIZE) + (spec.extra_size or 0)
    wanted = {"train": (spec.train_size or SIZE) + held_out, "val": spec.test_size or SIZE}
    chosen = {
        part: [paths[i] for i in shuffled(len(paths))[: wanted[part]].tolist()]
        for part, paths in pictures.items()
    }
    look = PREPROCESSINGS[spec.preprocessing or "Res256Crop224"]

    def prepared(picture: Image.Image) -> Image.Image:
        result: Image.Image = look(picture.convert("RGB"))
        return result

    splits = read_parts(root, chosen, names, cache, prepared, key=str(spec.preprocessing))
    return Source(
        pool=splits["train"],
        test=splits["val"],
        class_names=names,
        selection_size=min(SELECTION_SIZE, max(1, len(splits["train"]) // 10)),
    )
