"""The batch crop against a crop of one image at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from defenses.augmentation import Crops, crop_and_flip, random_crops
from defenses.randomness import generator


def test_equals_pad_crop_and_flip_of_each_image() -> None:
    stream = generator("tests", "augmentation")
    images = torch.randint(256, (40, 3, 9, 9), dtype=torch.uint8, generator=stream)
    crops = random_crops(40, 2, flip=True, generator=stream)
    expected = []
    for image, top, left, mirrored in zip(images, *crops, strict=True):
        crop = F.pad(image, (2, 2, 2, 2))[:, top : top + 9, left : left + 9]
        expected.append(crop.flip(2) if mirrored else crop)
    found = crop_and_flip(images, crops, 2)
    assert found.dtype == torch.uint8
    assert torch.equal(found, torch.stack(expected))
    assert 0 < int(crops.mirrored.sum()) < 40


def test_the_middle_crop_is_the_image() -> None:
    images = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8, generator=generator(0, ""))
    middle = torch.full((5,), 4)
    assert torch.equal(crop_and_flip(images, Crops(middle, middle, middle < 0), 4), images)


def test_crops_are_even_over_all_places_and_flips_can_be_off() -> None:
    crops = random_crops(8100, 1, flip=True, generator=generator("tests", "crops"))
    places = torch.bincount(3 * crops.top + crops.left, minlength=9)
    assert places.shape == (9,)
    assert (places > 780).all()
    assert abs(float(crops.mirrored.float().mean()) - 0.5) < 0.03
    assert not random_crops(100, 1, flip=False, generator=generator(0, "")).mirrored.any()
