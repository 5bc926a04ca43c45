"""What only a GPU can show: python -m pytest -m gpu tests/defenses/test_gpu.py tests/measures"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from defenses.attacks import autoattack
from defenses.attacks.autoattack import Effort
from defenses.batches import plan_epoch
from defenses.datasets import Data, to_float
from defenses.evaluation import evaluate
from defenses.masking import check
from defenses.methods import make_method
from defenses.models import initial_model
from defenses.numerics import numerics
from defenses.spec import Norm, Threat, TrainingSpec, WeightPerturbation
from defenses.state import State
from defenses.training import Interrupted, take_step, train

MakeSpec = Callable[..., TrainingSpec]
DEVICE = torch.device("cuda")
HALF = {"precision": "bf16", "attack_precision": "bf16", "channels_last": True}
COMPILED = HALF | {"compile": True, "deterministic": False}
ENGINES: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": HALF | {"fold_batch_norm": True},
    "compiled": COMPILED,
    "CUDA graphs": COMPILED | {"cuda_graphs": True},
}
METHODS = ["standard", "at", "trades", "mart"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


@pytest.fixture
def few(digits: Data) -> Data:
    return replace(digits, train=digits.train[:200]).to(DEVICE)


@pytest.mark.parametrize("awp", [None, WeightPerturbation()], ids=["sgd", "awp"])
@pytest.mark.parametrize("engine", ["fp32", "bf16", "compiled"])
@pytest.mark.parametrize("method", METHODS)
def test_no_step_waits_for_the_device(
    method: str, engine: str, awp: WeightPerturbation | None, make_spec: MakeSpec, few: Data
) -> None:
    spec = make_spec(
        method, awp=awp, augmentation="crop_flip", extra_data=True, ema_decay=0.9, **ENGINES[engine]
    )
    with numerics(DEVICE, deterministic=spec.recipe.deterministic):
        state = State.new(initial_model(spec, few, "id").to(DEVICE), spec.recipe, DEVICE)
        state.model.train()
        plan = plan_epoch(spec, few, "id", 1)
        chosen = make_method(method, {})
        for _ in range(3):  # compiles
            take_step(spec, chosen, state, plan, "id", 4)
        torch.cuda.set_sync_debug_mode("error")
        try:
            take_step(spec, chosen, state, plan, "id", 4)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    state.check_finite()


@pytest.mark.parametrize("awp", [None, WeightPerturbation()], ids=["sgd", "awp"])
@pytest.mark.parametrize("method", METHODS)
def test_all_engines_train_alike(
    method: str, awp: WeightPerturbation | None, make_spec: MakeSpec, few: Data, tmp_path: Path
) -> None:
    losses = {}
    for engine, options in ENGINES.items():
        spec = make_spec(method, awp=awp, epochs=3, **options)
        result = train(spec, few, tmp_path / engine, training_id="id", device=DEVICE)
        losses[engine] = result.history[-1]["loss"]
    assert losses == pytest.approx(dict.fromkeys(losses, losses["fp32"]), rel=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_resumed_bit_for_bit(
    method: str, precision: str, make_spec: MakeSpec, few: Data, tmp_path: Path
) -> None:
    """With extra data, averaging, crops and AWP, but where fp16's first steps overflow."""
    spec = make_spec(
        method,
        awp=None if precision == "fp16" else WeightPerturbation(),
        augmentation="crop_flip",
        extra_data=True,
        ema_decay=0.9,
        precision=precision,
        attack_precision=precision,
        channels_last=precision != "fp32",
        fold_batch_norm=precision != "fp32",
    )
    train(spec, few, tmp_path / "whole", training_id="id", device=DEVICE)
    for steps in (3, 2):
        left = iter([False] * steps)
        with pytest.raises(Interrupted):
            train(
                spec,
                few,
                tmp_path / "cut",
                training_id="id",
                device=DEVICE,
                should_stop=lambda left=left: next(left, True),
            )
    train(spec, few, tmp_path / "cut", training_id="id", device=DEVICE)
    for name in ("initial", "best", "last"):
        a, b = (load_file(tmp_path / run / f"{name}.safetensors") for run in ("whole", "cut"))
        assert all(torch.equal(a[key], b[key]) for key in a), name


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 0.8)])
def test_evaluation_is_that_of_the_cpu(
    norm: Norm, eps: float, small_model: nn.Module, digits: Data
) -> None:
    """With deterministic algorithms; all but a few examples at the boundary."""
    threat = Threat(norm=norm, eps=eps, step_size=eps / 4)
    some = replace(digits, train=digits.train[:100], test=digits.test[:100])
    found = {}
    for device in (torch.device("cpu"), DEVICE):
        data, model = some.to(device), small_model.to(device).eval()
        x, y = to_float(data.test.images), data.test.labels
        with numerics(device):
            metrics = evaluate(model, data, threat, batch_size=64).metrics
            withstood = autoattack.robust(
                model, x, y, threat=threat, effort=Effort(steps=10, targets=3, queries=50)
            )
            right = model(x).argmax(dim=1) == y
            report = check(model, x, y, threat=threat, correct_pgd=right)
        found[device.type] = metrics | {
            "autoattack": float(withstood.double().mean()),
            "black_box": report.black_box,
            "more_steps": report.more_steps,
        }
    assert found["cuda"] == pytest.approx(found["cpu"], abs=0.05)
