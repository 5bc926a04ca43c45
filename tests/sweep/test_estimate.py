"""The estimated cost of a training against operations counted while real steps are taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from defenses.architectures import build, flops
from defenses.awp import perturbed_gradients
from defenses.methods import METHODS, InnerAttack, make_method
from defenses.spec import WeightPerturbation
from sweep.estimate import gpu_seconds, passes, relative_cost
from sweep.plan import plan
from sweep.setting import Job

STEPS = 4
FORMS = {
    None: None,
    "layerwise": WeightPerturbation(form="layerwise"),
    "global": WeightPerturbation(form="global"),
}


class Counter(TorchDispatchMode):
    """Multiply-adds, as two, of every convolution that runs, forward and backward."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        aten = torch.ops.aten
        if func is aten.convolution.default:
            self.total += 2 * result.numel() * args[1][0].numel()
        elif func is aten.convolution_backward.default:
            one = 2 * args[0].numel() * args[2][0].numel()
            self.total += one * sum(part is not None for part in result[:2])
        return result


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("results")
    return plan(["method=at", "architecture=wrn10_1", f"results_dir={folder}"]).jobs[0]


def of(job: Job, **changes: Any) -> Job:
    return replace(job, spec=replace(job.spec, **changes))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", METHODS)
def test_passes_are_those_of_a_real_step(name: str, form: str | None, job: Job) -> None:
    method, awp = make_method(name, {}), FORMS[form]
    steps = STEPS if method.needs_inner_maximisation else None
    model = build("wrn10_1", num_classes=10)
    stream = torch.Generator().manual_seed(0)
    attack = InnerAttack(eps=0.1, step_size=0.05, steps=steps or 0, generator=stream)
    x, y = torch.rand(2, 3, 8, 8, generator=stream), torch.tensor([3, 5])
    with Counter() as counter:
        if awp is None:
            method.loss(model, x, y, attack).total.backward()
        else:
            perturbed_gradients(model, method, x, y, attack, awp)
    counted = counter.total / (2 * flops("wrn10_1", 10, 3, 8))
    optimizer = "sgd" if awp is None else "awp"
    estimated = passes(
        of(job, method=name, steps=steps, optimizer=optimizer, weight_perturbation=awp)
    )
    # the first layer's backward pass to the image is not always needed: 2 % of this network
    assert sum(estimated) == pytest.approx(counted, rel=0.03)


def test_warm_up_epochs_of_awp_cost_less(job: Job) -> None:
    def cost(epochs: int) -> float:
        awp = WeightPerturbation(form="layerwise", warmup_epochs=epochs)
        recipe = replace(job.spec.recipe, epochs=20)
        return sum(passes(of(job, optimizer="awp", weight_perturbation=awp, recipe=recipe)))

    assert cost(0) == 6 + 20
    assert cost(10) == 4.5 + 20
    assert cost(20) == cost(30) == 3 + 20


def test_hours_follow_the_arithmetic(job: Job, tmp_path: Path) -> None:
    def seconds(**recipe: Any) -> float:
        return gpu_seconds(of(job, recipe=replace(job.spec.recipe, **recipe)))

    forward = flops("wrn10_1", 10, 1, 8) * job.spec.recipe.epochs
    images = -(-job.train_size // job.spec.batch_size) * job.spec.batch_size
    assert seconds(min_steps_per_epoch=0) == pytest.approx(forward * images * 23 / 14e12)
    assert seconds(tf32=True) == pytest.approx(seconds() * 14 / 50)
    half = seconds(precision="bf16", attack_precision="bf16")
    assert half == pytest.approx(seconds() * 14 / 100)
    assert half < seconds(attack_precision="bf16") < seconds()
    assert relative_cost(of(job, architecture="resnet18")) > relative_cost(job)


def test_measuring_costs_the_same_however_long_the_training_was(job: Job) -> None:
    long = of(job, recipe=replace(job.spec.recipe, epochs=7 * job.spec.recipe.epochs), steps=20)
    assert relative_cost(long) > 7 * relative_cost(job)
    alone = relative_cost(job, measures_only=True)
    assert relative_cost(long, measures_only=True) == alone < relative_cost(job)
    both = replace(job, checkpoints=("last", "best"))
    assert relative_cost(both, measures_only=True) == 2 * alone
