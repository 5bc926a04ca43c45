"""Planning: counts, rules, ids, and what is left to do."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from measures.sets import CHEAP
from sweep.plan import Plan, plan, progress
from sweep.schema import Options


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


@pytest.mark.parametrize(
    ("overrides", "models"),
    [
        (["method=at,trades", "methods.trades.beta=1,6"], 3),
        (["method=standard", "steps=1,10"], 1),
        (["method=at", "optimizer=sgd,awp", "awp.gamma=0.01,0.02"], 3),
        (["method=at", "augmentation=none,crop_flip", "training.crop_padding=1,2"], 3),
        # one level is no axis: nothing is lost
        (["method=at,trades", "+study.axes={evaluation.steps:[20]}"], 2),
    ],
)
def test_options_without_effect_on_some_models_are_merged(
    overrides: list[str], models: int, tmp_path: Path
) -> None:
    found = planned(tmp_path, *overrides)
    assert found.models == models
    assert all(job.evaluation.steps in (10, 20) for job in found.jobs)


@pytest.mark.parametrize(
    ("overrides", "axis"),
    [
        (["evaluation.steps=10,50"], "evaluation.steps"),
        (["evaluation=default,autoattack"], "evaluation"),
        (["measures=[x_grad_norm],[prob_margin]"], "measures"),
        (["measuring.images=100,200"], "measuring.images"),
        (["torch_threads=1,2"], "torch_threads"),
        (["tracking=wandb,none"], "tracking"),
        (["study.sample=1,2"], "study.sample"),
        # the second setting is another checkpoint of the same training: it has no job of its own
        (["early_stopping=false,true", "evaluation.seed=0,1"], "evaluation.seed"),
        (["evaluation.steps=10,50", "measuring.seed=0,1"], "measuring.seed"),
    ],
)
def test_an_axis_that_makes_no_models_differ_is_refused(
    overrides: list[str], axis: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"^{axis} cannot be an axis: it makes no models differ"):
        planned(tmp_path, "method=at,standard", *overrides)


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


def test_data_that_is_not_there_is_told_apart_by_what_is_asked_of_it(tmp_path: Path) -> None:
    def trainings(*overrides: str) -> int:
        found = planned(tmp_path, "dataset=cifar10", f"dataset.path={tmp_path}/none", *overrides)
        assert found.missing_files
        return len(found.jobs)

    assert trainings("dataset.train_size=10000,20000") == 2
    assert trainings("dataset.selection_size=500,1000") == 2
    assert trainings("dataset.extra_path=a.npz,b.npz", "extra_data=true") == 2
    # as with the images: what nobody uses makes no difference
    assert trainings("dataset.extra_path=a.npz,b.npz", "extra_data=false") == 1
    assert trainings("dataset.download=false,true") == 1


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
        ("early_stopping=maybe", "early_stopping='maybe' must be true or false"),
        ("method=[at]", r"unknown method \"\['at'\]\".*valid: at, .*mart"),
        ("method=at,[trades]", "unknown method .*valid: at"),
        ("architecture=3", "architecture='3' is not valid; choose one of: resnet18"),
        ("architecture=wrn9_1", "the depth must be 10, 16, 22"),
        ("methods=abc", "methods='abc' must be a mapping"),
        ("zoo=3", "zoo=3 must be a mapping"),
        ("measures=3", "measures=3 must be the name of a set or of a measure, or a list"),
        ("measures=[[a]]", "or a list of names"),
        ("measuring=null", "measuring=None must be a mapping"),
        ("measuring.parameters=3", "measuring.parameters=3 must be a mapping"),
        ("+measuring.parameters.x_grad_norm.foo=1", "x_grad_norm has no parameter foo"),
        ("+measure_sets.default=3", "measure_sets.default=3 must be a mapping"),
        ("+measure_sets.default={names: 3}", "measure_sets.default=3 must be the name of a set"),
        ("study.sample=abc", "study.sample='abc' must be a whole number"),
        ("study.sample=2", "study.sample=2 must be between 1 and 1"),
        ("study.axes=3", "study.axes=3 must be a mapping"),
        ("results_dir=5", "results_dir=5 must be text"),
        ("resume=again", "choose one of: all, failed, missing"),
        ("checkpoints=3", "checkpoints=3 must be a list"),
        ("checkpoints=[best]", "in a study give early_stopping=false,true"),
        ("checkpoint_minutes=-1", "must be at least 0"),
        ("training.lr=inf", "training.lr=inf must be a finite number"),
        ("+foo=1", "unknown option 'foo'"),
        ("~seed", "seed is missing"),
        ("study=demo,paper", "study takes one value"),
        ("hydra/launcher=local,slurm", "hydra/launcher takes one value"),
        ("seed=glob(*)", "list the values"),
        ("seed", "must be key=value"),
        ("=3", "has no key"),
        ("dataset.name=cifar", "unknown dataset 'cifar'"),
        ("training.selection.size=1000", "only 150 images are held out"),
        ("study.name=a/b", "usable as a folder name"),
        ("training.precision=fp8", "choose one of: fp32, bf16, fp16"),
        ("training.cuda_graphs=true", "needs training.compile=true"),
    ],
)
def test_mistakes(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan([f"results_dir={tmp_path}", override])


def test_a_list_of_measures_may_name_sets_but_not_those_with_options(tmp_path: Path) -> None:
    (job,) = planned(tmp_path, "measures=[cheap,ece,x_grad_norm]").jobs
    assert job.measuring.names == (*CHEAP, "ece")
    with pytest.raises(ValueError, match="mine is a set of this study with options of its own"):
        planned(tmp_path, "measures=[mine,ece]", "+measure_sets.mine={images: 10, names: [ece]}")


@pytest.mark.parametrize("key", sorted({f.name for f in fields(Options)}))
def test_nonsense_for_any_key_is_refused_in_a_line_that_names_it(key: str, tmp_path: Path) -> None:
    numbers = {"steps", "batch_size", "seed", "torch_threads", "checkpoint_minutes"}
    for value in ("[[at]]", "true" if key in numbers else "3"):
        with pytest.raises(ValueError, match=key) as refused:
            plan([f"results_dir={tmp_path}", f"{key}={value}"])
        assert "\n" not in str(refused.value)


def test_of_many_bad_settings_the_first_is_told_and_all_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch_size=-1.*\(2 of 4 settings are invalid\)"):
        planned(tmp_path, "batch_size=-1,32", "method=at,trades")
