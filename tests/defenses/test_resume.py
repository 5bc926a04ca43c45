"""A killed and resumed training ends with the bits of an uninterrupted one."""

from __future__ import annotations

import json
import logging
import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from defenses.datasets import Data, load
from defenses.spec import TrainingSpec, WeightPerturbation
from defenses.training import Interrupted, train

MakeSpec = Callable[..., TrainingSpec]
AWP = {
    None: None,
    "global": WeightPerturbation(form="global"),
    "layerwise": WeightPerturbation(form="layerwise", gamma=0.01, warmup_epochs=1),
}
EVERYTHING: dict[str, Any] = {
    "fold_batch_norm": True,
    "extra_data": True,
    "augmentation": "crop_flip",
    "precision": "bf16",
    "attack_precision": "bf16",
    "ema_decay": 0.9,
    "schedule": "cosine",
    "epochs": 3,
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def without_times(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if "second" not in key}


def assert_same(first: Path, second: Path) -> None:
    """All weights bit for bit, and the history but for the times in it."""
    for name in ("initial", "best", "last"):
        a, b = (load_file(folder / f"{name}.safetensors") for folder in (first, second))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    lines = [
        [without_times(json.loads(line)) for line in (folder / "history.jsonl").open()]
        for folder in (first, second)
    ]
    assert lines[0] == lines[1]


def spec_for(make_spec: MakeSpec, method: str, form: str | None) -> TrainingSpec:
    return make_spec(method, awp=AWP[form], **EVERYTHING)


@pytest.mark.parametrize("form", AWP)
@pytest.mark.parametrize("method", ["standard", "at", "trades", "mart"])
def test_interrupted_at_random_steps(
    method: str, form: str | None, make_spec: MakeSpec, cache: Path, tmp_path: Path
) -> None:
    spec = spec_for(make_spec, method, form)
    data = load(spec.dataset, extra_data=True, cache=cache)
    train(spec, data, tmp_path / "whole", training_id="id", device="cpu")
    dice = random.Random(f"{method} {form}")
    interruptions = 0
    while True:
        left = dice.randint(0, 6)

        def should_stop() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        try:
            cut = tmp_path / "cut"
            train(spec, data, cut, training_id="id", device="cpu", should_stop=should_stop)
        except Interrupted:
            interruptions += 1
        else:
            break
    assert interruptions >= 2
    assert_same(tmp_path / "whole", tmp_path / "cut")


def attempt(spec: TrainingSpec, cache: Path, directory: Path) -> None:
    """What a killed process was doing: train, with a checkpoint after every single step."""
    torch.set_num_threads(1)
    data = load(spec.dataset, extra_data=True, cache=cache)
    train(spec, data, directory, training_id="id", device="cpu", checkpoint_minutes=0)


@pytest.mark.parametrize(
    ("method", "form"),
    [("standard", "global"), ("at", "layerwise"), ("trades", "global"), ("mart", "layerwise")],
)
def test_killed_at_random_moments(
    method: str, form: str, make_spec: MakeSpec, cache: Path, tmp_path: Path
) -> None:
    """kill -9, also in the middle of writing a file."""
    spec = spec_for(make_spec, method, form)
    attempt(spec, cache, tmp_path / "whole")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["defenses.training", "sklearn.datasets"])
    dice = random.Random(method)
    kills, patience = 0, 0.15
    while True:
        process = context.Process(target=attempt, args=(spec, cache, tmp_path / "cut"))
        process.start()
        if kills < 4:
            (tmp_path / "cut").mkdir(exist_ok=True)
            began = time.monotonic()
            while not (tmp_path / "cut" / "initial.safetensors").exists():
                assert time.monotonic() - began < 60
                time.sleep(0.01)
            process.join(dice.uniform(0, patience))
        else:
            process.join(120)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
        patience *= 1.5
    assert process.exitcode == 0
    assert kills >= 2
    assert_same(tmp_path / "whole", tmp_path / "cut")


def stopped_after(steps: int, spec: TrainingSpec, data: Data, directory: Path) -> None:
    left = iter([False] * steps)
    with pytest.raises(Interrupted):
        train(
            spec,
            data,
            directory,
            training_id="id",
            device="cpu",
            should_stop=lambda: next(left, True),
            checkpoint_minutes=0,
        )


def test_a_torn_checkpoint_falls_back_to_the_previous_one(
    make_spec: MakeSpec, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = make_spec("at")
    data = load(spec.dataset, extra_data=False, cache=cache)
    train(spec, data, tmp_path / "whole", training_id="id", device="cpu")
    stopped_after(5, spec, data, tmp_path / "cut")
    newest = tmp_path / "cut" / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    with caplog.at_level(logging.WARNING):
        train(spec, data, tmp_path / "cut", training_id="id", device="cpu")
    assert "checkpoint.pt cannot be read" in caplog.text
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_unusable_checkpoints_are_an_error_not_a_new_start(
    make_spec: MakeSpec, cache: Path, tmp_path: Path
) -> None:
    spec = make_spec("at")
    data = load(spec.dataset, extra_data=False, cache=cache)
    stopped_after(2, spec, data, tmp_path)
    with pytest.raises(ValueError, match="belongs to another training"):
        train(spec, data, tmp_path, training_id="other", device="cpu")
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"no checkpoint .* can be read"):
        train(spec, data, tmp_path, training_id="id", device="cpu")


def test_the_history_never_has_more_than_the_checkpoint(
    make_spec: MakeSpec, cache: Path, tmp_path: Path
) -> None:
    """Lines written after the checkpoint are of epochs that will be done again."""
    spec = make_spec("at", epochs=3)
    data = load(spec.dataset, extra_data=False, cache=cache)
    stopped_after(5, spec, data, tmp_path)
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"epoch": 2}\n{"epoch"')
    announced: list[int] = []
    train(
        spec,
        data,
        tmp_path,
        training_id="id",
        device="cpu",
        on_epoch=lambda record: announced.append(record["epoch"]),
    )
    epochs = [json.loads(line)["epoch"] for line in (tmp_path / "history.jsonl").open()]
    assert epochs == [1, 2, 3]
    assert announced == [2, 3]


def test_epochs_are_announced_after_they_are_durable(
    make_spec: MakeSpec, cache: Path, tmp_path: Path
) -> None:
    spec = make_spec("at", epochs=3)
    data = load(spec.dataset, extra_data=False, cache=cache)

    def check(record: dict[str, Any]) -> None:
        stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        assert record in stored["history"]
        assert json.dumps(record) in (tmp_path / "history.jsonl").read_text()

    train(spec, data, tmp_path, training_id="id", device="cpu", on_epoch=check)
