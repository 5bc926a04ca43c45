"""What ``plan`` says beyond counts: hours, disk, and the arrays that Slurm would get."""

from __future__ import annotations

from pathlib import Path

import pytest

from defenses import architectures
from defenses.architectures import parameter_count
from sweep import compose, task
from sweep.plan import plan
from sweep.preview import Preview, preview

SMALL = (
    "architecture=wrn10_1",
    "method=standard",
    "training.epochs=1",
    "dataset.train_size=64",
    "measures=[x_grad_norm]",
    "measuring.images=32",
    "tracking=none",
    "device=cpu",
)


def shown(*overrides: str) -> Preview:
    return preview(plan(overrides), compose.launcher(overrides))


def test_hours_are_measured_where_the_architecture_has_run(tmp_path: Path) -> None:
    study = [*SMALL, "seed=0,1,2", f"results_dir={tmp_path}"]
    before = shown(*study)
    assert before.cost.source.startswith("from counted FLOPs of the training steps")
    first, *_ = plan(study).jobs
    report = task.run(first, before.plan.store)
    assert report.outcome == "done"
    (row,) = report.rows
    spent = row["costs"]["train_seconds"] + row["costs"]["evaluate_seconds"]
    spent += sum(row["costs"]["measure_seconds"].values())
    after = shown(*study)
    # two trainings that differ in the seed alone cost twice as much as the one that has run
    assert after.cost.hours == pytest.approx(2 * spent / 3600)
    assert after.cost.source == f"measured in 1 trainings on {row['provenance']['device_name']}"
    assert (after.as_dict()["done"], after.as_dict()["todo"]) == (1, 2)
    mixed = shown(*study, "architecture=wrn10_1,resnet_small")
    assert "; for 3 of 5 trainings from counted FLOPs" in mixed.cost.source


def test_hours_are_counted_for_the_images_that_there_are(tmp_path: Path) -> None:
    def hours(*overrides: str) -> float:
        here = [f"dataset.path={tmp_path}/none", f"results_dir={tmp_path}"]
        common = ["architecture=wrn10_1", "dataset.train_size=1000", "training.epochs=1"]
        return shown(*common, *here, "batch_size=100", "method=at", *overrides).cost.hours

    def flops(classes: int, channels: int, size: int) -> float:
        return architectures.flops("wrn10_1", classes, channels, size)

    # none of them is there: their readers know how they were published
    cifar10 = hours("dataset=cifar10")
    for dataset, images in {
        "cifar100": (100, 3, 32), "mnist": (10, 1, 28), "imagenet": (1000, 3, 224),
    }.items():  # fmt: skip
        ratio = flops(*images) / flops(10, 3, 32)
        assert hours(f"dataset={dataset}") == pytest.approx(cifar10 * ratio), dataset


def test_the_papers_hours_are_those_that_the_documentation_tells(tmp_path: Path) -> None:
    paper = ["study=paper", f"dataset.path={tmp_path}/none", f"results_dir={tmp_path}"]
    tf32, fp32 = (shown(*paper, *more).cost.hours for more in ([], ["training.tf32=false"]))
    text = (Path(__file__).parents[2] / "docs/training.md").read_text()
    assert f"about {round(tf32, -2):,.0f} GPU-hours" in text
    assert f"{round(fp32, -2):,.0f} in plain fp32" in text


def test_disk_is_that_of_the_weights(tmp_path: Path) -> None:
    overrides = [*SMALL, f"results_dir={tmp_path}"]
    (job,) = plan(overrides).jobs
    report = task.run(job, plan(overrides).store)
    assert report.outcome == "done"
    folder = tmp_path / "trainings" / job.training_id
    weights = 4 * parameter_count(architectures.build("wrn10_1", num_classes=10, in_channels=1))
    kept = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    everything = kept + sum(path.stat().st_size for path in folder.glob("checkpoint*.pt"))
    said = shown(*overrides).disk
    assert said.bytes == 3 * weights
    assert said.bytes == pytest.approx(kept, rel=0.1)
    assert said.bytes >= 0.9 * kept
    assert everything <= 1.1 * said.bytes_at_most


def test_arrays_for_the_defaults_where_there_is_no_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    paper = ["study=paper", "dataset=digits", f"results_dir={tmp_path}"]
    assert shown(*paper).as_dict()["slurm"] is None
    slurm = shown(*paper, "hydra/launcher=slurm", "hydra.launcher.chain=2").as_dict()["slurm"]
    assert (
        slurm["note"] == "there is no Slurm on this machine; shown for arrays of 1001, its default"
    )
    assert [(a["jobs"], a["tasks"], a["canary"]) for a in slurm["arrays"]] == [
        (4, 4, True),
        (334, 668, False),
    ]
    with pytest.raises(ValueError, match=r"hydra.launcher.chain=0 must be at least 1"):
        shown(*paper, "hydra/launcher=slurm", "hydra.launcher.chain=0")
