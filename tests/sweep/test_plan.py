"""Planning: counts, rules, ids, and what is left to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweep.plan import Plan, plan, progress


def planned(tmp_path: Path, *overrides: str) -> Plan:
    return plan([*overrides, f"results_dir={tmp_path}"])


def test_the_papers_grid_is_1344_models_from_672_trainings(tmp_path: Path) -> None:
    paper = planned(tmp_path, "study=paper", "dataset=digits")
    assert paper.headline() == "1344 models from 672 trainings"
    # half of standard's 384 settings differ in nothing but steps that it does not have
    assert paper.merged == {"no inner maximisation, so no steps": 192}
    assert len({job.training_id for job in paper.jobs}) == 672
    assert {job.spec.steps for job in paper.jobs if job.spec.method == "standard"} == {None}
    state = progress(paper.jobs, paper.store)
    assert state.counts() == {"missing": 1344}
    assert len(state.todo) == 672
    assert not state.measure_only


def test_equal_configurations_are_merged(tmp_path: Path) -> None:
    beta = planned(tmp_path, "method=at,trades", "methods.trades.beta=1,6")
    assert (beta.models, len(beta.jobs)) == (3, 3)
    assert beta.merged == {"equal settings": 1}


def test_ids_follow_what_affects_the_weights_and_nothing_else(tmp_path: Path) -> None:
    def ids(*overrides: str) -> set[str]:
        return {job.training_id for job in planned(tmp_path, *overrides).jobs}

    base = ids("method=at")
    for same in (
        "torch_threads=2",
        "tracking=none",
        "measures=[x_grad_norm]",
        "evaluation.steps=20",
        "early_stopping=true",
        "methods.trades.beta=1",
        "awp.gamma=0.5",
        "study.name=other",
        "device=cpu",
        "training.single_step_size=0.1",  # not a one-step training
        "training.crop_padding=2",  # nothing is cropped
        "dataset.extra_labels=true",  # no extra data
        "threat.eps=3/20",  # the data set's own, written differently
    ):
        assert ids("method=at", same) == base, same
    for different in (
        "seed=1",
        "threat.eps=0.1",
        "training.lr=0.05",
        "dataset.train_size=100",
        "optimizer=awp",
        "training.selection.first_epoch=2",
        "training.fold_batch_norm=true",
    ):
        assert ids("method=at", different).isdisjoint(base), different
    for method in ("standard", "grad_align"):  # nothing is attacked, or not in eval mode
        assert ids(f"method={method}", "training.fold_batch_norm=true") == ids(f"method={method}")


@pytest.mark.parametrize(
    ("overrides", "training_id"),
    [
        (["method=at"], "098b9d9f4f648f83"),
        (["method=standard"], "bf94c10f64f82656"),
        (
            [
                "method=trades",
                "optimizer=awp",
                "augmentation=crop_flip",
                "extra_data=true",
                "seed=3",
            ],
            "cf25618633058542",
        ),
    ],
)
def test_golden_ids(overrides: list[str], training_id: str, tmp_path: Path) -> None:
    """Ids that are on people's disks: an option added since must not change them."""
    (job,) = planned(tmp_path, *overrides).jobs
    assert job.training_id == training_id


def test_data_that_is_not_there_is_listed_not_an_error(tmp_path: Path) -> None:
    missing = planned(tmp_path, "study=paper", f"dataset.path={tmp_path}/nowhere")
    assert missing.models == 1344
    assert len(missing.missing_files) >= 1
    assert "sweep prepare dataset=" in missing.missing_files[0]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method=pgd", "unknown method 'pgd'.*valid: at, .*mart"),
        ("architecture=vgg", "architecture='vgg' is not valid"),
        ("threat.eps=-0.1", r"threat.eps=-0.1 must be at least 0"),
        ("threat.norm=l1", "choose one of: linf, l2"),
        ("optimizer=adam", "choose one of: sgd, awp"),
        ("batch_size=0", "batch_size=0 must be at least 1"),
        ("steps=many", "steps='many' must be a whole number"),
        ("measures=[x_grad]", "measure 'x_grad' is not known"),
        ("measures=[./none.py:f]", "there is no file"),
        ("early_stopping=maybe", "choose one of: True, False"),
        ("dataset.name=cifar", "unknown dataset 'cifar'"),
        ("training.selection.size=1000", "only 150 images are held out"),
        ("study.name=a/b", "usable as a folder name"),
        ("training.precision=fp8", "choose one of: fp32, bf16, fp16"),
        ("training.cuda_graphs=true", "needs training.compile=true"),
    ],
)
def test_mistakes(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned(tmp_path, override)


def test_of_many_bad_settings_the_first_is_told_and_all_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size=-1.*\(2 of 4 settings are invalid\)"):
        planned(tmp_path, "batch_size=-1,32", "method=at,trades")
