"""Imported models as jobs: planned, run and resumed like trainings, with a stand-in package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sweep import manifest, task
from sweep.plan import Plan, plan, progress
from sweep.prepare import prepare
from sweep.store import Store
from sweep.table import collect

LABEL = "cifar10/Linf/One"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """CIFAR-like images whose brightness is their class."""
    labels = np.arange(160) % 10
    noise = np.random.default_rng(0).integers(0, 60, (160, 32, 32, 3))
    pixels = (noise + 19 * labels[:, None, None, None]).astype(np.uint8)
    parts = {"x_train": pixels[:100], "y_train": labels[:100]}
    np.savez(tmp_path / "small.npz", x_test=pixels[100:], y_test=labels[100:], **parts)
    return tmp_path / "small.npz"


@pytest.fixture
def weights(package: Any, tmp_path: Path) -> Path:
    path = tmp_path / "results/zoo/cifar10/Linf/One.pt"
    path.parent.mkdir(parents=True)
    torch.save(package.make().state_dict(), path)
    return path


def planned(tmp_path: Path, *more: str) -> Plan:
    return plan(
        [
            "study=robustbench", "dataset.name=npz", f"dataset.path={tmp_path}/small.npz",
            "dataset.selection_size=20", "dataset.train_size=32", "dataset.test_size=30",
            "evaluation.masking_images=0", "evaluation.steps=2", "tracking=none",
            "measures=[prob_margin,euclid_init_norm]", f"results_dir={tmp_path}/results",
            *([] if any(m.startswith("imported=") for m in more) else [f"imported={LABEL}"]), *more,
        ]
    )  # fmt: skip


def test_a_model_of_the_zoo_is_a_row_like_any_other(
    weights: Path, images: Path, tmp_path: Path
) -> None:
    found = planned(tmp_path)
    assert found.headline() == "1 imported models"
    assert found.missing_files == ()
    (job,) = found.jobs
    manifest.append(found.store, found.study, found.jobs)
    report = task.run(next(iter(manifest.jobs(found.store, "robustbench").values())), found.store)
    assert (report.outcome, report.reason) == ("done", None)
    (row,) = report.rows
    assert row["axes"]["imported"] == LABEL
    assert (row["axes"]["method"], row["axes"]["architecture"]) == ("imported", None)
    assert (row["axes"]["norm"], row["axes"]["eps"]) == ("linf", 8 / 255)  # the zoo's
    assert row["metrics"]["clean_test"]["value"] >= row["metrics"]["pgd_test"]["value"]
    assert isinstance(row["measures"]["prob_margin"]["value"], float)
    unknown = row["measures"]["euclid_init_norm"]
    assert unknown["value"] is None
    assert unknown["reason"] == "the weights before training are not known"
    assert progress(found.jobs, found.store).todo == ()
    again = task.run(job, found.store)
    assert again.rows == report.rows
    table = collect(found.store, "robustbench")
    assert list(table["status"]) == ["done"]
    assert table["steps"].isna().all()


def test_its_identity_is_the_file_the_images_and_the_threat(
    package: Any, weights: Path, images: Path, tmp_path: Path
) -> None:
    def only(*more: str) -> str:
        (job,) = planned(tmp_path, *more).jobs
        return job.training_id

    first = only()
    assert only("method=trades", "batch_size=7", "seed=3", "training.lr=0.5") == first
    assert only("threat.eps=0.01") != first
    assert only("dataset.train_size=16") != first
    state = package.make().state_dict()
    torch.save({key: value + 1 for key, value in state.items()}, weights)
    assert only() != first


def test_what_is_missing_is_listed_and_named(package: Any, images: Path, tmp_path: Path) -> None:
    found = planned(tmp_path, "imported=cifar10/Linf/One,cifar10/Linf/Three")
    assert len(found.jobs) == 2
    assert [line.split(" is missing")[0] for line in found.missing_files] == [
        f"{tmp_path}/results/zoo/cifar10/Linf/{name}" for name in ("One.pt", "Three.pt_m0.pt")
    ]
    for wrong, message in {
        "cifar10/Linf/Two": "RobustBench has no cifar10/Linf/Two; it has: One, Three, Timm",
        "cifar10/One": "write <dataset>/<threat>/<name>",
        "cifar10/Linf/Timm": "comes from timm or torchvision",
    }.items():
        with pytest.raises(ValueError, match=message):
            planned(tmp_path, f"imported={wrong}")
    with pytest.raises(ValueError, match="early_stopping=true"):
        planned(tmp_path, "early_stopping=true")


def test_a_file_that_changed_after_planning_is_a_failed_row(
    package: Any, weights: Path, images: Path, tmp_path: Path
) -> None:
    (job,) = planned(tmp_path).jobs
    torch.save({k: v + 1 for k, v in package.make().state_dict().items()}, weights)
    report = task.run(job, Store(tmp_path / "results"))
    assert report.outcome == "failed"
    assert "not those that this task was planned with" in str(report.reason)


def test_a_model_for_other_images_says_so(package: Any, tmp_path: Path, weights: Path) -> None:
    grey = np.zeros((60, 32, 32), np.uint8)
    labels = np.arange(60) % 10
    np.savez(tmp_path / "small.npz", x_train=grey, y_train=labels, x_test=grey, y_test=labels)
    (job,) = planned(tmp_path).jobs
    report = task.run(job, Store(tmp_path / "results"))
    assert report.outcome == "failed"
    assert f"{LABEL} does not take the grey images of npz" in str(report.reason)


def test_prepare_fetches_goes_on_and_says_what_it_could_not(
    package: Any, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [
        "study=robustbench", "dataset.name=npz", f"dataset.path={images}",
        "dataset.selection_size=20", "imported=cifar10/Linf/One,cifar10/Linf/Three",
        f"results_dir={tmp_path}/results",
    ]  # fmt: skip
    asked: list[str] = []

    def download(*, id: str, output: str, resume: bool, quiet: bool) -> None:
        asked.append(id)
        if id == "id-b":
            raise ConnectionError("no route")
        torch.save(package.make().state_dict(), output)

    package.gdown.download = download
    said: list[str] = []
    assert prepare(overrides, said.append) == ["cifar10/Linf/Three could not be fetched: no route"]
    assert said[0] == "npz: 80 training and 60 test images"
    assert "One.pt" in said[1]
    assert asked == ["id-one", "id-a", "id-b"]
    monkeypatch.setattr(package.gdown, "download", lambda *, output, **_: torch.save({}, output))
    (problem,) = prepare(overrides, said.append)
    assert "holds no state dict" in problem
    assert len(list((tmp_path / "results/zoo/cifar10/Linf").glob("*.pt"))) == 2
