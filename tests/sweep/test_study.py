"""A study through the real commands: results, resume, other launchers, and users' mistakes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import save_file
from scipy.stats import kendalltau

from defenses.architectures import build
from sweep.analysis import correlate, usable
from sweep.store import Store
from tests.sweep.conftest import SMALL, Launch, command, environment

GRID = ("method=standard,at,trades", "steps=1,2", "early_stopping=false,true", "study.name=small")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, launch: Launch) -> Path:
    """A small study, run from another folder by the local launcher."""
    root = tmp_path_factory.mktemp("results")
    done = launch("-m", *GRID, *SMALL, "tracking=wandb", f"results_dir={root}", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 models from 5 trainings" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("report/index.html")
    return root


def table(results: Path) -> pd.DataFrame:
    return pd.read_parquet(results / "studies" / "small" / "models.parquet")


def test_one_row_per_model_with_fixed_columns(results: Path) -> None:
    models = table(results)
    assert len(models) == 10
    assert set(models["status"]) == {"done"}
    assert models["steps"].dtype == "Int64"
    assert models.loc[models["method"] == "standard", "steps"].isna().all()
    for name in ("clean_train", "clean_test", "fgsm_test", "pgd_train", "pgd_test"):
        assert models[name].between(0, 1).all()
    assert (models["gap"] == (models["pgd_train"] - models["pgd_test"]).round(9)).all()
    assert models["row_digest"].nunique() == 10
    assert {"measure/x_grad_norm", "measure/x_grad_norm.reason"} <= set(models)


def test_each_model_has_its_offline_run_inside_the_study(results: Path) -> None:
    runs = {p.name for p in (results / "studies" / "small" / "wandb").glob("offline-run-*")}
    for model_id in table(results)["model_id"]:
        assert any(run.endswith(model_id) for run in runs)


def test_accuracies_are_those_of_the_stored_examples(results: Path) -> None:
    store = Store(results)
    for model in table(results).itertuples():
        correct = store.read_correct(str(model.model_id))
        assert correct["pgd_train"].mean() == pytest.approx(model.pgd_train)
        assert correct["clean_test"].mean() == pytest.approx(model.clean_test)


def test_tau_of_the_table_is_scipys(results: Path) -> None:
    models = usable(table(results).assign(status="done", clean_test=0.9))
    result = correlate(models, draws=20)
    for name in result.index:
        expected = kendalltau(models[f"measure/{name}"], models["gap"]).statistic
        assert result.loc[name, "tau"] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_measuring_a_checkpoint_by_itself_gives_the_study_s_values(
    results: Path, sweep: Launch
) -> None:
    model = table(results).query("method == 'at'").iloc[0]
    weights = results / "trainings" / model["training_id"] / f"{model['model_id'][17:]}.safetensors"
    done = sweep("measure", str(weights), "--architecture", "resnet_small", *SMALL)
    assert done.returncode == 0, done.stderr
    shown = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if " " in line}
    for column in ("clean_test", "pgd_train", "gap", "measure/x_grad_norm", "measure/prob_margin"):
        assert shown[column] == f"{model[column]:.4g}", column


def test_again_does_nothing_and_says_so(results: Path, launch: Launch) -> None:
    before = {p: p.stat().st_mtime_ns for p in results.glob("*/*/*.json")}
    again = launch("-m", *GRID, *SMALL, f"results_dir={results}")
    assert again.returncode == 0
    assert "everything is there already" in again.stdout
    assert {p: p.stat().st_mtime_ns for p in results.glob("*/*/*.json")} == before


def test_another_measure_is_one_more_column_and_nothing_else(results: Path, launch: Launch) -> None:
    before = table(results).set_index("model_id")
    done = launch(
        "-m", *GRID, *SMALL[:-1], "measures=[x_grad_norm,prob_margin,path_norm]",
        f"results_dir={results}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 to measure" in done.stdout
    after = table(results).set_index("model_id")
    assert after["measure/path_norm"].notna().all()
    kept = ["gap", "measure/x_grad_norm", "measure/log_prod_of_fro", "cost/train_seconds"]
    pd.testing.assert_frame_equal(before[kept], after[kept])


def test_a_part_run_again_does_not_shrink_the_study(results: Path, launch: Launch) -> None:
    part = ("method=at", "steps=1", "early_stopping=true", "study.name=small")
    done = launch("-m", *part, *SMALL, f"results_dir={results}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(table(results)) == 10
    alone = launch("method=at", "steps=1", "study.name=small", *SMALL, f"results_dir={results}")
    assert alone.returncode == 0
    assert len(table(results)) == 10


def test_a_measure_of_a_part_is_empty_elsewhere_with_that_reason(
    results: Path, launch: Launch
) -> None:
    part = (*GRID, *SMALL[:-1], "study.sample=2", "measures=[params]", f"results_dir={results}")
    done = launch("-m", *part)
    assert done.returncode == 0, done.stdout + done.stderr
    models = table(results)
    asked = models["measure/params"].notna()
    assert asked.sum() == 4  # two settings, both checkpoints
    assert models.loc[asked, "measure/params.reason"].isna().all()
    assert set(models.loc[~asked, "measure/params.reason"]) == {"not asked of this model"}


def test_killed_and_run_again_equals_undisturbed(
    results: Path, tmp_path: Path, launch: Launch
) -> None:
    """kill -9 in the middle of the training, twice; then the same command to the end."""
    arguments = ("method=trades", "steps=2", "early_stopping=false", *SMALL)
    for after_epochs in (1, 2):
        process = subprocess.Popen(
            command(*arguments, f"results_dir={tmp_path}"),
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"epoch {after_epochs}/"):
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = launch(*arguments, f"results_dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = (json.loads(p.read_text()) for p in tmp_path.glob("models/*/row.json"))
    undisturbed = Store(results).read_row(row["model_id"])
    assert undisturbed is not None
    for part in ("axes", "metrics"):
        assert row[part] == undisturbed[part]
    for name, result in row["measures"].items():
        assert result == undisturbed["measures"][name]
    assert row["provenance"]["attempt"] > 1


def test_autoattack_and_masking_are_metrics_of_a_row(tmp_path: Path, launch: Launch) -> None:
    done = launch(
        "method=at", "steps=2", *SMALL, "evaluation=autoattack",
        "evaluation.autoattack_images=8", "evaluation.masking_images=16",
        f"results_dir={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = (json.loads(p.read_text()) for p in tmp_path.glob("models/*/row.json"))
    correct = Store(tmp_path).read_correct(row["model_id"])
    assert len(correct["aa_test"]) == 8
    assert not (correct["aa_test"] & ~correct["clean_test"][:8]).any()
    assert row["metrics"]["aa_test"]["value"] == correct["aa_test"].mean()
    assert isinstance(row["metrics"]["masking"]["value"], bool)


def test_other_launchers_of_hydra_run_whole_tasks(tmp_path: Path, launch: Launch) -> None:
    grid = ("method=at", "steps=1", "training.lr=0.1,0.05", "early_stopping=false,true")
    done = launch("-m", *grid, *SMALL, "hydra/launcher=basic", f"results_dir={tmp_path}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("models/*/row.json"))) == 4
    (study,) = (p.parent.name for p in tmp_path.glob("studies/*/models.parquet"))
    models = pd.read_parquet(tmp_path / "studies" / study / "models.parquet")
    assert set(models["training.lr"]) == {0.1, 0.05}


def test_a_training_that_somebody_works_on_is_left_alone(tmp_path: Path, launch: Launch) -> None:
    arguments = ("method=at", "steps=1", *SMALL, "training.epochs=200", f"results_dir={tmp_path}")
    first = subprocess.Popen(
        command(*arguments), env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    first.stdout.readline()
    second = launch(*arguments)
    assert second.returncode == 0
    assert "running" in second.stderr
    first.send_signal(signal.SIGTERM)  # asked to stop: saved, and told so
    deadline = time.time() + 60
    while first.poll() is None and time.time() < deadline:
        time.sleep(0.1)
    assert first.returncode == 130


def test_a_crash_is_a_row_with_a_reason_and_a_failed_exit(tmp_path: Path, launch: Launch) -> None:
    done = launch("-m", "method=at,trades", "steps=1", "early_stopping=false", *SMALL,
                  "training.lr=1e30", "study.name=bad", f"results_dir={tmp_path}")  # fmt: skip
    assert done.returncode == 1
    assert "2 diverged" in done.stderr
    models = pd.read_parquet(tmp_path / "studies" / "bad" / "models.parquet")
    assert set(models["status"]) == {"diverged"}
    assert models["reason"].str.len().gt(10).all()
    assert len(list(tmp_path.glob("trainings/*/error.json"))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("metod=at",), "did you mean method?"),
        (("-m", "method"), "must be key=value"),
        (("measures=3",), "must be the name of a set or of a measure, or a list"),
        (("method=pgd",), "valid: at,"),
        (("threat.eps=-1",), "must be at least 0"),
        (("dataset=image_folder", "dataset.path=/nowhere"), "/nowhere"),
        (("-m", "method=at,pdg"), "unknown method 'pdg'"),
        (("device=cuda",), "no GPU is visible"),
    ],
)
def test_mistakes_are_one_clear_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, launch: Launch
) -> None:
    if arguments == ("device=cuda",):
        import torch

        if torch.cuda.is_available():
            arguments = ("device=tpu",)
            message = "choose one of: auto, cpu, cuda"
    done = launch(*arguments, f"results_dir={tmp_path}")
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_study_without_m_trains_one_model_and_says_so(tmp_path: Path, launch: Launch) -> None:
    done = launch("study=demo", *SMALL, "training.epochs=1", "steps=1", f"results_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("models/*/row.json"))) == 1
    (warning,) = done.stderr.strip().splitlines()
    assert warning.startswith("warning: this trains one model; the axes of study demo (method,")
    assert "python launch.py -m study=demo training.epochs=3" in warning


def test_measuring_a_model_of_other_images_is_one_line(tmp_path: Path, sweep: Launch) -> None:
    (tmp_path / "theirs.py").write_text(
        "from defenses.architectures import build\n"
        "def colour(): return build('resnet_small', num_classes=10)\n"
    )
    done = sweep("measure", "theirs:colour", *SMALL, f"results_dir={tmp_path}", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "error: theirs:colour takes images of 3 channels; those of digits have 1"
    )


def test_measuring_weights_that_carry_no_normalisation(tmp_path: Path, sweep: Launch) -> None:
    model = build("resnet_small", num_classes=10, in_channels=1, image_size=8)
    save_file(model[1].state_dict(), tmp_path / "raw.safetensors")
    command = ("measure", str(tmp_path / "raw.safetensors"), "--architecture", "resnet_small")
    refused = sweep(*command, *SMALL, f"results_dir={tmp_path}")
    assert refused.returncode == 2
    assert "give --normalisation, none, numbers as mean/std" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
    shown = set()
    for given in ("none", "dataset", "0.3/0.4"):
        done = sweep(*command, "--normalisation", given, *SMALL, f"results_dir={tmp_path}")
        assert done.returncode == 0, done.stderr
        shown.add(done.stdout)
    assert len(shown) == 3


def test_measuring_uses_the_threads_of_a_study(tmp_path: Path, sweep: Launch) -> None:
    (tmp_path / "theirs.py").write_text(
        "import torch\n"
        "from defenses.architectures import build\n"
        "def counted():\n"
        "    open('threads', 'a').write(f'{torch.get_num_threads()} ')\n"
        "    return build('resnet_small', num_classes=10, in_channels=1, image_size=8)\n"
    )
    for threads in ("torch_threads=1", "torch_threads=3"):
        sweep("measure", "theirs:counted", *SMALL, threads, f"results_dir={tmp_path}", cwd=tmp_path)
    assert (tmp_path / "threads").read_text() == "1 3 "


def test_a_corrupt_image_is_named(tmp_path: Path, launch: Launch) -> None:
    from PIL import Image

    for part in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "images" / part / label
            folder.mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (8, 8), (i * 60, 0, 0)).save(folder / f"{i}.png")
    (tmp_path / "images" / "train" / "b" / "2.png").write_bytes(b"not a picture")
    done = launch(
        "dataset=image_folder", f"dataset.path={tmp_path}/images", f"results_dir={tmp_path}/r"
    )
    assert done.returncode == 2
    assert "train/b/2.png" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_the_command_line_of_sweep(results: Path, sweep: Launch, tmp_path: Path) -> None:
    planned = sweep("plan", *GRID, *SMALL, f"results_dir={results}", "--json", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    summary = json.loads(planned.stdout)
    assert (summary["models"], summary["trainings"], summary["done"]) == (10, 5, 10)
    text = sweep("plan", "study=paper", "dataset=digits")
    assert text.stdout.splitlines()[0] == "1344 models from 672 trainings"
    status = sweep("status", "small", "--results-dir", str(results))
    assert "10" in status.stdout
    unknown = sweep("status", "smal", "--results-dir", str(results))
    assert unknown.returncode == 2
    assert re.search(r"studies there: .*\bsmall\b", unknown.stderr)  # other tests add more
