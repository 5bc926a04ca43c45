"""The loop against a plain one; what it leaves behind, what it reports and how it fails."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn
from torch._dynamo.testing import CompileCounter

from defenses.attacks import pgd
from defenses.batches import plan_epoch
from defenses.datasets import Data
from defenses.failures import memory_errors
from defenses.models import InputShape, initial_model, load_model
from defenses.randomness import generator
from defenses.spec import Selection, TrainingSpec, WeightPerturbation
from defenses.training import Diverged, Interrupted, OutOfMemory, train

MakeSpec = Callable[..., TrainingSpec]
DEVICE = "cpu"


@pytest.fixture
def few(digits: Data) -> Data:
    return replace(digits, train=digits.train[:200])


def run(spec: TrainingSpec, data: Data, directory: Path, **options: Any) -> Any:
    return train(spec, data, directory, training_id="id", device=DEVICE, **options)


def test_equals_a_plain_loop(make_spec: MakeSpec, few: Data, tmp_path: Path) -> None:
    """AT with crops, by PyTorch's own optimizer and scheduler and an attack written out."""
    spec = make_spec("at", augmentation="crop_flip", epochs=4, batch_size=50)
    run(spec, few, tmp_path)

    model = initial_model(spec, few, "id")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3], gamma=0.1)
    for epoch in range(1, 5):
        plan = plan_epoch(spec, few, "id", epoch)
        for step in range(4):
            x, y = plan.batch(step)
            stream = generator("id", "attack", epoch, step)
            model.eval()
            x_adv = (x + torch.empty_like(x).uniform_(-0.15, 0.15, generator=stream)).clamp(0, 1)
            for _ in range(2):
                x_adv.requires_grad_(True)
                gradient = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)[0]
                x_adv = x_adv.detach() + 0.04 * gradient.sign()
                x_adv = (x + (x_adv - x).clamp(-0.15, 0.15)).clamp(0, 1)
            model.train()
            optimizer.zero_grad()
            F.cross_entropy(model(x_adv), y).backward()
            optimizer.step()
        schedule.step()
    for name, weight in load_file(tmp_path / "last.safetensors").items():
        torch.testing.assert_close(weight, model.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_leaves_its_files_and_a_history(make_spec: MakeSpec, few: Data, tmp_path: Path) -> None:
    spec = make_spec("trades", extra_data=True)
    announced: list[dict[str, Any]] = []
    result = run(spec, few, tmp_path, on_epoch=announced.append)
    names = {"initial.safetensors", "best.safetensors", "last.safetensors", "history.jsonl"}
    files = {path.name for path in tmp_path.iterdir()}
    assert names | {"checkpoint.pt"} <= files
    assert files <= names | {"checkpoint.pt", "checkpoint.previous.pt"}
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert lines == announced == list(result.history)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[0]["lr"] == 0.1
    assert lines[1]["labelled_epochs"] == result.labelled_epochs == 2 * 4 * 32 / 200
    expected = {
        "epoch", "lr", "loss", "loss/ce", "loss/kl", "clean_selection", "pgd_selection",
        "labelled_epochs", "images_per_second", "seconds",
    }  # fmt: skip
    assert set(lines[0]) == expected
    for line in lines:
        assert line["loss"] == pytest.approx(line["loss/ce"] + 6 * line["loss/kl"], rel=1e-5)


def test_weights_can_be_loaded_again(make_spec: MakeSpec, few: Data, tmp_path: Path) -> None:
    spec = make_spec()
    result = run(spec, few, tmp_path)
    initial = load_model(spec, few, tmp_path / "initial.safetensors", DEVICE)
    assert not initial.training
    for name, weight in initial_model(spec, few, "id").state_dict().items():
        assert torch.equal(initial.state_dict()[name], weight)
    shape = InputShape(10, 1, 8, few.normalisation)
    best = load_model(spec, shape, tmp_path / "best.safetensors", DEVICE)
    last = load_file(tmp_path / "last.safetensors")
    same = all(torch.equal(best.state_dict()[name], last[name]) for name in last)
    assert same == (result.best_epoch == 2)


def test_robust_training_is_robust(digits: Data, make_spec: MakeSpec, tmp_path: Path) -> None:
    """At the demo's threat: standard breaks, adversarially trained does not."""
    x, y = digits.test.images.float() / 255, digits.test.labels
    accuracy = {}
    for method in ("standard", "at"):
        spec = make_spec(
            method, steps=None if method == "standard" else 4, epochs=6, min_steps_per_epoch=10
        )
        run(spec, digits, tmp_path / method)
        model = load_model(spec, digits, tmp_path / method / "last.safetensors", DEVICE)
        attacked = pgd(
            model, x, y, eps=0.15, step_size=0.04, steps=10, generator=generator(0, "test")
        )
        accuracy[method] = [float((model(z).argmax(1) == y).float().mean()) for z in (x, attacked)]
    assert accuracy["standard"][0] > 0.85
    assert accuracy["standard"][1] < 0.3
    assert accuracy["at"][1] > accuracy["standard"][1] + 0.2


def test_seeds_and_ids_give_different_weights(
    make_spec: MakeSpec, few: Data, tmp_path: Path
) -> None:
    spec = make_spec("standard", epochs=1)
    train(spec, few, tmp_path / "a", training_id="a", device=DEVICE)
    train(spec, few, tmp_path / "b", training_id="b", device=DEVICE)
    a, b = (load_file(tmp_path / name / "initial.safetensors") for name in "ab")
    assert not torch.equal(a["1.conv1.weight"], b["1.conv1.weight"])


def test_awp_warms_up(make_spec: MakeSpec, few: Data, tmp_path: Path) -> None:
    """Through the warm-up nothing differs from plain training; then everything does."""
    plain = run(make_spec("at"), few, tmp_path / "plain")
    awp = WeightPerturbation(form="layerwise", gamma=0.05, warmup_epochs=1)
    perturbed = run(make_spec("at", awp=awp), few, tmp_path / "awp")
    assert perturbed.history[0]["loss"] == plain.history[0]["loss"]
    assert perturbed.history[1]["loss"] != plain.history[1]["loss"]


def test_single_step_size_is_for_single_steps(
    make_spec: MakeSpec, few: Data, tmp_path: Path
) -> None:
    losses = {}
    for steps in (1, 2):
        for size in (None, 0.15):
            spec = make_spec("at", steps=steps, single_step_size=size, epochs=1)
            result = run(spec, few, tmp_path / f"{steps}{size}")
            losses[steps, size] = result.history[0]["loss"]
    assert losses[1, None] != losses[1, 0.15]
    assert losses[2, None] == losses[2, 0.15]


def test_the_average_is_what_is_judged_and_saved(
    make_spec: MakeSpec, few: Data, tmp_path: Path
) -> None:
    """With the same steps; an average that forgets at once is the model itself."""
    plain = run(make_spec("standard"), few, tmp_path / "plain")
    averaged = run(make_spec("standard", ema_decay=0.999), few, tmp_path / "ema")
    forgetful = run(make_spec("standard", ema_decay=1e-9), few, tmp_path / "one")
    assert averaged.history[1]["loss"] == plain.history[1]["loss"]
    assert forgetful.history[1]["clean_selection"] == plain.history[1]["clean_selection"]
    last, ema, one = (
        load_file(tmp_path / name / "last.safetensors")["1.linear.weight"]
        for name in ("plain", "ema", "one")
    )
    torch.testing.assert_close(one, last)
    assert not torch.allclose(ema, last, atol=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains(
    precision: str, make_spec: MakeSpec, few: Data, tmp_path: Path
) -> None:
    options = {"epochs": 3, "channels_last": True}
    exact = run(make_spec("at", **options), few, tmp_path / "fp32")
    reduced = run(
        make_spec("at", precision=precision, attack_precision=precision, **options),
        few,
        tmp_path / precision,
    )
    assert reduced.history[2]["loss"] != exact.history[2]["loss"]
    assert reduced.history[2]["loss"] == pytest.approx(exact.history[2]["loss"], rel=0.1)
    stored = load_file(tmp_path / precision / "last.safetensors")
    assert stored["1.conv1.weight"].dtype == torch.float32


def test_a_training_compiles_its_attack_and_its_step(
    make_spec: MakeSpec, few: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each: whatever this process compiled before, and whatever the epochs are judged on."""
    counter, compile_ = CompileCounter(), nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: compile_(self, backend=counter))
    for epochs in (1, 2):
        counter.clear()
        run(make_spec("at", compile=True, epochs=epochs), few, tmp_path / str(epochs))
        assert counter.frame_count == 2


def test_divergence_is_caught_within_its_epoch(
    make_spec: MakeSpec, few: Data, tmp_path: Path
) -> None:
    spec = make_spec("standard", lr=1e20, epochs=5)
    with pytest.raises(Diverged) as caught:
        run(spec, few, tmp_path)
    assert caught.value.epoch == 1
    assert "finite" in caught.value.reason or "nan" in caught.value.reason
    assert not (tmp_path / "last.safetensors").exists()


def test_memory_errors_say_what_was_needed(make_spec: MakeSpec) -> None:
    spec = make_spec(batch_size=2**45)
    message = r"batch_size=35184372088832 needed 2251799813685248 bytes more"
    with pytest.raises(OutOfMemory, match=message), memory_errors(spec):
        torch.empty(spec.batch_size, 8, 8, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="shape"), memory_errors(spec):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_another_attempt_can_take_over(make_spec: MakeSpec, few: Data, tmp_path: Path) -> None:
    """A writer that lost its lease changes nothing that can be seen."""

    class TakenOver(Exception):
        pass

    def taken_over() -> None:
        raise TakenOver

    with pytest.raises(TakenOver):
        run(make_spec(), few, tmp_path, before_commit=taken_over)
    assert list(tmp_path.iterdir()) == []


def test_interruption_comes_at_the_next_step(
    make_spec: MakeSpec, few: Data, tmp_path: Path
) -> None:
    asked = []
    with pytest.raises(Interrupted, match="in epoch 1, before step 2"):
        run(make_spec(), few, tmp_path, should_stop=lambda: asked.append(1) or len(asked) > 2)
    stored = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert (stored["epoch"], stored["step"]) == (1, 2)


def test_a_finished_training_is_not_repeated(
    make_spec: MakeSpec, few: Data, tmp_path: Path
) -> None:
    first = run(make_spec(), few, tmp_path)
    weights = (tmp_path / "last.safetensors").read_bytes()
    announced: list[Any] = []
    again = run(make_spec(), few, tmp_path, on_epoch=announced.append, should_stop=lambda: True)
    assert again == first
    assert announced == []
    assert (tmp_path / "last.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "at", "steps": None}, "method at needs steps"),
        ({"method": "standard", "steps": 3}, "steps must be null, not 3"),
        ({"method": "none"}, "choose one of: standard"),
        ({"architecture": "vgg"}, "choose one of: resnet18"),
        ({"method_parameters": {"beta": 1}}, "has no hyperparameter 'beta'"),
        ({"selection": Selection(size=1000)}, "digits has 150 such images"),
        ({"compile": True, "cuda_graphs": True}, "needs an NVIDIA GPU, and the device is cpu"),
        ({"method": "grad_align", "compile": True}, "grad_align differentiates gradients"),
    ],
)
def test_impossible_specifications_are_named(
    changes: dict[str, Any], message: str, make_spec: MakeSpec, few: Data, tmp_path: Path
) -> None:
    spec = make_spec(**copy.copy(changes))
    with pytest.raises(ValueError, match=message):
        run(spec, few, tmp_path)
