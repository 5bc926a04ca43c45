"""Data sets read from files: what is right is read, what is wrong is named."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from defenses.datasets import DataCorrupt, DataMissing, load, read_source
from defenses.datasets.arrays import read_extra
from defenses.spec import DatasetSpec

RNG = np.random.default_rng(0)


def pixels(*shape: int) -> NDArray[np.uint8]:
    return RNG.integers(256, size=shape, dtype=np.uint8)


def folder(root: Path, *, mode: str = "RGB") -> Path:
    """Two classes, eight training and four test pictures of 6x6."""
    for part, count in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                shape = (6, 6, 3) if mode == "RGB" else (6, 6)
                Image.fromarray(pixels(*shape)).save(root / part / name / f"{index}.png")
    return root


def of_folder(root: Path) -> DatasetSpec:
    return DatasetSpec(name="image_folder", path=str(root), selection_size=2)


def test_image_folder_is_read_and_decoded_once(tmp_path: Path) -> None:
    root, cache = folder(tmp_path / "pictures"), tmp_path / "cache"
    source = read_source(of_folder(root), cache)
    assert source.class_names == ("cat", "dog")
    assert source.pool.images.shape == (8, 3, 6, 6)
    assert source.pool.labels.tolist() == [0] * 4 + [1] * 4
    with Image.open(root / "train" / "dog" / "2.png") as picture:
        expected = torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())
    assert torch.equal(source.pool.images[6], expected)
    assert [path.suffix for path in (cache / "image_folders").iterdir()] == [".npz"]

    changed = pixels(6, 6, 3)
    Image.fromarray(changed).save(root / "train" / "dog" / "2.png")
    os.utime(root / "train" / "dog" / "2.png", (1, 1))
    again = read_source(of_folder(root), cache)
    assert torch.equal(again.pool.images[6], torch.from_numpy(changed.transpose(2, 0, 1)))
    assert torch.equal(again.pool.images[:6], source.pool.images[:6])


def test_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = folder(tmp_path / "pictures"), tmp_path / "cache"
    first = read_source(of_folder(root), cache)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(read_source(of_folder(root), cache).test.images, first.test.images)


def test_grey_pictures_have_one_channel(tmp_path: Path) -> None:
    source = read_source(of_folder(folder(tmp_path, mode="L")), tmp_path / "cache")
    assert source.pool.images.shape == (8, 1, 6, 6)


def imagenet(root: Path) -> Path:
    """Two classes of photographs of any size, three channels or one; with val for test."""
    for part, count in (("train", 12), ("val", 6)):
        for name in ("n01", "n02"):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                shape = (300, 260 + index, 3) if index % 2 else (280, 400)
                Image.fromarray(pixels(*shape)).save(root / part / name / f"{index}.JPEG")
    return root


@pytest.mark.parametrize("look", ["Res256Crop224", "BicubicRes256Crop224", "Crop288", "Res224"])
def test_imagenet_is_a_fixed_part_prepared_as_robustbench_does(tmp_path: Path, look: Any) -> None:
    from torchvision import transforms as T

    steps = {
        "Res256Crop224": [T.Resize(256), T.CenterCrop(224)],
        "BicubicRes256Crop224": [
            T.Resize(256, interpolation=T.InterpolationMode("bicubic")), T.CenterCrop(224)
        ],
        "Crop288": [T.CenterCrop(288)],
        "Res224": [T.Resize([224, 224])],
    }  # fmt: skip
    root = imagenet(tmp_path / "imagenet")
    spec = DatasetSpec(
        name="imagenet", path=str(root), train_size=9, selection_size=3, test_size=5,
        preprocessing=look,
    )  # fmt: skip
    data = load(spec, extra_data=False, cache=tmp_path / "cache")
    size = 288 if look == "Crop288" else 224
    assert data.train.images.shape == (9, 3, size, size)
    assert len(data.test) == 5
    assert (data.class_names, data.num_classes) == (("n01", "n02"), 2)
    files = sorted((root / "val").glob("*/*.JPEG"))
    expected = []
    for path in files:
        with Image.open(path) as picture:
            image = T.Compose([*steps[look], T.ToTensor()])(picture.convert("RGB"))
        expected.append((image * 255).round().byte())
    for image, label in zip(data.test.images, data.test.labels, strict=True):
        matches = [i for i, other in enumerate(expected) if torch.equal(image, other)]
        assert [files[i].parent.name for i in matches] == [data.class_names[int(label)]]
    with pytest.raises(DataMissing, match=r"imagenet cannot be downloaded for you"):
        load(DatasetSpec(name="imagenet"), extra_data=False, cache=tmp_path / "cache")


def test_the_fingerprint_depends_on_the_images_not_on_their_place(tmp_path: Path) -> None:
    first = folder(tmp_path / "a")
    second = tmp_path / "b"
    first.rename(second)
    moved = load(of_folder(second), extra_data=False, cache=tmp_path / "cache")
    second.rename(first)
    back = load(of_folder(first), extra_data=False, cache=tmp_path / "other")
    assert moved.fingerprint == back.fingerprint


def test_a_corrupt_picture_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path)
    broken = root / "train" / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataCorrupt, match=r"train/dog/3\.png is not a readable picture"):
        read_source(of_folder(root), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_picture_of_another_size_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path)
    Image.fromarray(pixels(7, 7, 3)).save(root / "train" / "cat" / "1.png")
    with pytest.raises(DataCorrupt, match=r"train/cat/1\.png is 7x7; .*the first is 6x6"):
        read_source(of_folder(root), tmp_path / "cache")


def test_a_missing_folder_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"nowhere/train is not there; .*train/<class>"):
        read_source(of_folder(tmp_path / "nowhere"), tmp_path / "cache")
    with pytest.raises(ValueError, match=r"needs dataset\.path"):
        read_source(DatasetSpec(name="image_folder"), tmp_path / "cache")


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes()))


def test_idx_files_are_read(tmp_path: Path) -> None:
    arrays = {"train": (pixels(30, 5, 5), RNG.integers(10, size=30, dtype=np.uint8))}
    arrays["t10k"] = (pixels(4, 5, 5), np.arange(4, dtype=np.uint8))
    for name, (images, labels) in arrays.items():
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", labels)
    spec = DatasetSpec(name="fashion_mnist", path=str(tmp_path))
    source = read_source(spec, tmp_path)
    assert np.array_equal(source.pool.images[:, 0].numpy(), arrays["train"][0])
    assert source.test.labels.tolist() == [0, 1, 2, 3]
    assert len(source.class_names) == 10

    broken = tmp_path / "t10k-images-idx3-ubyte.gz"
    broken.write_bytes(broken.read_bytes()[:-20])
    with pytest.raises(DataCorrupt, match=r"t10k-images-idx3-ubyte\.gz"):
        read_source(spec, tmp_path)
    broken.unlink()
    with pytest.raises(DataMissing, match="apt-get install dataset-fashion-mnist"):
        read_source(spec, tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "mnist"])
def test_published_data_are_not_downloaded_unasked(name: str, tmp_path: Path) -> None:
    command = rf"python -m sweep prepare dataset={name}"
    with pytest.raises(DataMissing, match=command):
        read_source(DatasetSpec(name=name), tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "unrelated").touch()
    with pytest.raises(DataCorrupt, match=command):
        read_source(DatasetSpec(name=name, path=str(tmp_path / "there")), tmp_path)


def cifar_batches(root: Path) -> dict[str, Any]:
    """CIFAR-10 in its published form, with two images a file. Returns what was written."""
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    written: dict[str, Any] = {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        written[name] = {"data": pixels(2, 3072), "labels": RNG.integers(10, size=2).tolist()}
        (base / name).write_bytes(pickle.dumps(written[name]))
    names = {"label_names": [f"class {i}" for i in range(10)]}
    (base / "batches.meta").write_bytes(pickle.dumps(names))
    return written


def test_cifar10_is_read_as_torchvision_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    written = cifar_batches(tmp_path)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda _: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    source = read_source(DatasetSpec(name="cifar10", path=str(tmp_path)), tmp_path)
    assert source.pool.images.shape == (10, 3, 32, 32)
    expected = written["test_batch"]["data"].reshape(2, 3, 32, 32)
    assert np.array_equal(source.test.images.numpy(), expected)
    assert source.test.labels.tolist() == written["test_batch"]["labels"]
    assert source.class_names[3] == "class 3"


def write_npz(path: Path, **changes: Any) -> Path:
    arrays = {
        "x_train": pixels(20, 6, 6, 3),
        "y_train": np.arange(20) % 4,
        "x_test": pixels(8, 6, 6, 3),
        "y_test": np.arange(8)[:, None] % 4,
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})
    return path


def of_npz(path: Path) -> DatasetSpec:
    return DatasetSpec(name="npz", path=str(path), selection_size=4)


def test_npz_is_read(tmp_path: Path) -> None:
    x = pixels(20, 6, 6, 3)
    source = read_source(of_npz(write_npz(tmp_path / "d.npz", x_train=x)), tmp_path)
    assert np.array_equal(source.pool.images.numpy(), x.transpose(0, 3, 1, 2))
    assert source.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": None}, "needs x_train, y_train, x_test, y_test"),
        ({"x_train": np.zeros((20, 6, 6, 3))}, "images are float64"),
        ({"x_train": pixels(20, 6, 5, 3)}, "must be uint8"),
        ({"y_train": np.arange(19)}, r"labels are int64 \(19,\) for 20"),
        ({"y_train": np.arange(20) - 1}, "negative labels"),
        ({"x_test": pixels(8, 7, 7, 3)}, "different shapes"),
        ({"y_train": np.array([{}] * 20)}, "not a readable .npz"),
    ],
)
def test_wrong_npz_says_what_is_wrong(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataCorrupt, match=message):
        read_source(of_npz(write_npz(tmp_path / "d.npz", **changes)), tmp_path)


@pytest.mark.parametrize("kind", ["pickle", "npz"])
def test_extra_data_come_from_a_file(kind: str, tmp_path: Path) -> None:
    x, y = pixels(12, 6, 6, 3), np.arange(12) % 4
    path = tmp_path / f"extra.{kind}"
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"data": x, "extrapolated_targets": y}))
    else:
        np.savez(path, image=x, label=y)
    spec = DatasetSpec(
        name="npz",
        path=str(write_npz(tmp_path / "d.npz")),
        selection_size=4,
        extra_path=str(path),
        extra_size=10,
    )
    data = load(spec, extra_data=True, cache=tmp_path)
    assert data.extra is not None
    assert np.array_equal(data.extra.images.numpy(), x[:10].transpose(0, 3, 1, 2))
    assert data.extra.labels.tolist() == y[:10].tolist()
    assert len(data.train) == 16


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_any_protocol_are_read(protocol: int, tmp_path: Path) -> None:
    x, y = pixels(3, 6, 6, 3), np.arange(3)
    path = tmp_path / "extra.pickle"
    path.write_bytes(pickle.dumps({"data": x, "extrapolated_targets": y}, protocol=protocol))
    assert np.array_equal(read_extra(path).images.numpy(), x.transpose(0, 3, 1, 2))


class Malicious:
    """Unpickling an ordinary pickle of this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


def test_pickles_cannot_run_code(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "extra.pickle"
    path.write_bytes(pickle.dumps({"data": Malicious(trace)}))
    with pytest.raises(DataCorrupt, match=r"extra\.pickle .*(posix|os)\.system"):
        read_extra(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # noqa: S301  (this shows that it would)
    assert trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a pickle of arrays"),
        (pickle.dumps([1]), "holds a list"),
        (pickle.dumps({"data": np.zeros(3)}), r"needs data\+extrapolated_targets or image\+label"),
        (pickle.dumps({"data": np.zeros(3)})[:-30], "not a pickle of arrays"),
    ],
)
def test_wrong_pickles_say_what_is_wrong(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "extra.pickle"
    path.write_bytes(content)
    with pytest.raises(DataCorrupt, match=message):
        read_extra(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    for name in ("extra.pickle", "extra.npz"):
        with pytest.raises(DataMissing, match=name):
            read_extra(tmp_path / name)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (pixels(3, 7, 7, 3), np.arange(3), r"has images \(3, 7, 7\), but those of npz are"),
        (pixels(3, 6, 6, 3), np.arange(3) + 2, "labels that npz does not have"),
    ],
)
def test_extra_images_must_fit(
    x: NDArray[np.uint8], y: NDArray[np.int64], message: str, tmp_path: Path
) -> None:
    extra = tmp_path / "extra.npz"
    np.savez(extra, image=x, label=y)
    spec = DatasetSpec(
        name="npz",
        path=str(write_npz(tmp_path / "d.npz")),
        selection_size=4,
        extra_path=str(extra),
    )
    with pytest.raises(DataCorrupt, match=message):
        load(spec, extra_data=True, cache=tmp_path)


def test_labels_of_a_pool_are_computed_once_and_kept(tmp_path: Path) -> None:
    """A pool of a data set whose labels are not shipped: two classes that are easy to tell."""
    y = np.arange(120) % 2
    x = (pixels(120, 8, 8) // 4 + (y * 128).astype(np.uint8)[:, None, None]).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    spec = DatasetSpec(name="npz", path=str(tmp_path / "d.npz"), selection_size=10, extra_size=30)
    data = load(spec, extra_data=True, cache=tmp_path / "a")
    assert data.extra is not None
    bright = data.extra.images.double().mean(dim=(1, 2, 3)) > 96
    assert (data.extra.labels == bright.long()).double().mean() > 0.9
    (file,) = (tmp_path / "a" / "pseudo_labels").iterdir()
    content = file.read_text()
    again = load(spec, extra_data=True, cache=tmp_path / "b")
    assert again.fingerprint == data.fingerprint
    assert next((tmp_path / "b" / "pseudo_labels").iterdir()).read_text() == content
