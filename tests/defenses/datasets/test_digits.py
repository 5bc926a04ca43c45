"""The embedded data set: its division, and that it is the same everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from defenses.datasets import (
    Data,
    DataMissing,
    divide,
    expected,
    expected_train_size,
    load,
    read_source,
    to_float,
)
from defenses.datasets.data import channel_statistics, shuffled
from defenses.spec import DatasetSpec


def test_parts_have_their_sizes_and_share_no_image(digits: Data) -> None:
    assert digits.extra is not None
    parts = (digits.train, digits.selection, digits.extra, digits.test)
    assert [len(part) for part in parts] == [600, 150, 300, 747]
    images = torch.cat([part.images for part in parts]).flatten(1)
    published = np.unique(np.rint(load_digits().data * 255 / 16), axis=0)
    assert np.array_equal(np.unique(images.numpy(), axis=0), published)
    assert len(images) == len(load_digits().data)


@pytest.mark.parametrize(
    "spec",
    [
        DatasetSpec(),
        DatasetSpec(selection_size=20),
        DatasetSpec(selection_size=200, extra_size=400),
        DatasetSpec(train_size=50),
        DatasetSpec(extra_path="elsewhere.npz"),
    ],
)
def test_what_is_known_without_the_images_is_true(spec: DatasetSpec, cache: Path) -> None:
    data = divide(read_source(spec, cache), spec).base[: spec.train_size]
    known = expected(spec)
    assert expected_train_size(spec) == len(data)
    assert data.images.shape[1:] == (known.channels, known.image_size, known.image_size)
    assert known.num_classes == len(read_source(spec, cache).class_names)


def test_every_class_is_in_every_part(digits: Data) -> None:
    for part in (digits.train, digits.selection, digits.test):
        assert part.labels.bincount(minlength=10).min() >= 0.06 * len(part)


def test_the_fingerprint_is_the_same_on_every_machine(digits: Data, cache: Path) -> None:
    assert digits.fingerprint == load(DatasetSpec(), extra_data=True, cache=cache).fingerprint
    assert digits.fingerprint.startswith("8c4aca7f5addcce3")


def test_pseudo_labels_are_shipped_and_mostly_right(digits: Data, cache: Path) -> None:
    assert not (cache / "pseudo_labels").exists()
    true = load(DatasetSpec(extra_labels="true"), extra_data=True, cache=cache)
    assert digits.extra is not None
    assert true.extra is not None
    assert torch.equal(digits.extra.images, true.extra.images)
    right = (digits.extra.labels == true.extra.labels).double().mean()
    assert 0.95 < right < 1
    assert true.fingerprint != digits.fingerprint


def test_extra_images_come_only_when_asked_for(digits: Data, cache: Path) -> None:
    without = load(DatasetSpec(), extra_data=False, cache=cache)
    assert without.extra is None
    assert without.fingerprint != digits.fingerprint  # of what is used, and nothing else
    assert torch.equal(without.train.images, digits.train.images)


def test_fewer_images_are_the_first_of_the_same_division(digits: Data, cache: Path) -> None:
    spec = DatasetSpec(train_size=100, selection_size=20, extra_size=30, test_size=50)
    few = load(spec, extra_data=True, cache=cache)
    assert few.extra is not None
    assert digits.extra is not None
    assert [len(p) for p in (few.train, few.selection, few.extra, few.test)] == [100, 20, 30, 50]
    assert torch.equal(few.train.images, digits.train.images[:100])
    assert torch.equal(few.extra.labels, digits.extra.labels[:30])
    assert few.fingerprint != digits.fingerprint
    assert not (cache / "pseudo_labels").exists()


@pytest.mark.parametrize("size", ["train_size", "selection_size", "extra_size", "test_size"])
def test_too_many_images_are_refused(size: str, cache: Path) -> None:
    with pytest.raises(ValueError, match=f"digits has .* too few for .*{size}=2000"):
        load(DatasetSpec(**{size: 2000}), extra_data=True, cache=cache)


def test_unknown_names_say_what_is_valid(cache: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.name='digit' .* one of: digits, fashion_mnist"):
        load(DatasetSpec(name="digit"), extra_data=False, cache=cache)


def test_normalisation_is_that_of_the_training_images(digits: Data) -> None:
    x = to_float(digits.train.images).double()
    (mean,), (std,) = digits.normalisation
    assert mean == pytest.approx(float(x.mean()), abs=1e-4)
    assert std == pytest.approx(float(x.std(correction=0)), abs=1e-4)
    assert channel_statistics(digits.train) == digits.normalisation


def test_the_shuffle_is_a_permutation_that_never_changes() -> None:
    assert torch.equal(shuffled(1000).sort().values, torch.arange(1000))
    assert shuffled(6).tolist() == [4, 3, 0, 1, 2, 5]


def test_missing_extra_data_says_how_to_get_it(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "small.npz"
    x = np.zeros((8, 8, 8), np.uint8)
    np.savez(path, x_train=x, y_train=np.arange(8) % 2, x_test=x, y_test=np.arange(8) % 2)
    spec = DatasetSpec(name="npz", path=str(path), selection_size=2)
    with pytest.raises(DataMissing, match=r"dataset\.extra_path=.*dataset\.extra_size="):
        load(spec, extra_data=True, cache=cache)
