"""Both forms of weight perturbation against straightforward computations."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defenses.awp import perturbed_gradients, unchanged_statistics, worst_weights
from defenses.methods import METHODS, InnerAttack, make_method
from defenses.randomness import generator
from defenses.spec import WeightPerturbation

Batch = tuple[Tensor, Tensor]
GAMMA = 0.02


def attack() -> InnerAttack:
    return InnerAttack(eps=0.15, step_size=0.04, steps=2, generator=generator("tests", "awp"))


def gradients_of(model: nn.Module, total: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(total, list(model.parameters())))


def moved(model: nn.Module, gradients: list[Tensor], form: str) -> nn.Module:
    """A copy of the model at the perturbed weights, computed parameter by parameter."""
    other = copy.deepcopy(model)
    weights = list(other.parameters())
    if form == "global":
        w_norm = torch.cat([w.flatten() for w in weights]).norm()
        g_norm = torch.cat([g.flatten() for g in gradients]).norm()
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if form == "global":
                weight += GAMMA * w_norm / g_norm * gradient
            elif weight.ndim > 1:
                weight += GAMMA * weight.norm() / gradient.norm() * gradient
    return other


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("form", ["global", "layerwise"])
def test_leaves_the_gradient_at_the_worst_weights(
    name: str, form: Any, small_model: nn.Module, batch: Batch
) -> None:
    model, (x, y) = small_model.double(), (batch[0].double(), batch[1])
    method = make_method(name, {})
    reference, plan = copy.deepcopy(model), attack()
    x_adv = method.craft(reference, x, y, plan)
    first = gradients_of(reference, method.objective(reference, x, x_adv, y).total)
    worst = moved(reference, first, form)
    if form == "global":  # made anew there, with the random numbers that follow
        x_adv = method.craft(worst, x, y, plan)
    expected = method.objective(worst, x, x_adv, y).total
    weights = [p.detach().clone() for p in model.parameters()]

    awp = WeightPerturbation(form=form, gamma=GAMMA)
    terms = perturbed_gradients(model, method, x, y, attack(), awp)

    assert terms.total.item() == pytest.approx(expected.item(), rel=1e-9)
    ours = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    theirs = torch.cat([g.flatten() for g in gradients_of(worst, expected)])
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))


def test_layerwise_counts_batch_statistics_once_and_global_twice(
    small_model: nn.Module, batch: Batch
) -> None:
    method = make_method("standard", {})
    counts = {}
    for form in ("layerwise", "global"):
        model = copy.deepcopy(small_model)
        norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        before = int(norm.num_batches_tracked)
        awp = WeightPerturbation(form=form, gamma=GAMMA)  # type: ignore[arg-type]
        perturbed_gradients(model, method, *batch, attack(), awp)
        counts[form] = int(norm.num_batches_tracked) - before
    assert counts == {"layerwise": 1, "global": 2}


@pytest.mark.parametrize("form", ["global", "layerwise"])
def test_the_perturbation_raises_the_loss_and_has_its_size(
    form: Any, small_model: nn.Module, batch: Batch
) -> None:
    small_model.eval()
    x, y = batch
    loss = nn.functional.cross_entropy(small_model(x), y)
    loss.backward()
    before = [p.detach().clone() for p in small_model.parameters()]
    with worst_weights(small_model, GAMMA, form):
        changes = [p.detach() - b for p, b in zip(small_model.parameters(), before, strict=True)]
        assert nn.functional.cross_entropy(small_model(x), y) > loss
        assert all(p.grad is None for p in small_model.parameters())
    if form == "global":
        size = torch.cat([c.flatten() for c in changes]).norm()
        whole = torch.cat([b.flatten() for b in before]).norm()
        torch.testing.assert_close(size, GAMMA * whole, rtol=1e-4, atol=0)
    else:
        for change, weight in zip(changes, before, strict=True):
            size = GAMMA * weight.norm() if weight.ndim > 1 else torch.zeros(())
            torch.testing.assert_close(change.norm(), size, rtol=1e-4, atol=1e-9)
    assert all(torch.equal(p, b) for p, b in zip(small_model.parameters(), before, strict=True))


@pytest.mark.parametrize("form", ["global", "layerwise"])
def test_an_overflow_of_fp16_skips_the_step_and_leaves_no_trace(
    form: Any, small_model: nn.Module, batch: Batch
) -> None:
    awp = WeightPerturbation(form=form, gamma=GAMMA)
    before = {k: v.clone() for k, v in small_model.named_parameters()}
    for scale, fits in ((2.0**40, False), (2.0**8, True)):
        small_model.zero_grad()
        terms = perturbed_gradients(
            small_model, make_method("at", {}), *batch, attack(), awp,
            precision="fp16", loss_scale=torch.tensor(scale),
        )  # fmt: skip
        assert bool(terms.total.isfinite())
        assert all(bool(b.isfinite().all()) for b in small_model.buffers())
        assert all(torch.equal(p, before[k]) for k, p in small_model.named_parameters())
        gradients = [p.grad for p in small_model.parameters() if p.grad is not None]
        assert all(bool(g.isfinite().all()) for g in gradients) == fits


def test_gamma_zero_is_no_perturbation(small_model: nn.Module, batch: Batch) -> None:
    method = make_method("at", {})
    x, y = batch
    plain = copy.deepcopy(small_model)
    method.loss(plain, x, y, attack()).total.backward()
    awp = WeightPerturbation(form="layerwise", gamma=0.0)
    perturbed_gradients(small_model, method, x, y, attack(), awp)
    for ours, theirs in zip(small_model.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_weights_and_statistics_come_back_after_an_error(
    small_model: nn.Module, batch: Batch
) -> None:
    small_model(batch[0]).sum().backward()
    before = {k: v.clone() for k, v in small_model.state_dict().items()}

    def fail() -> None:
        with worst_weights(small_model, GAMMA, "global"), unchanged_statistics(small_model):
            small_model(batch[0])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert all(torch.equal(v, before[k]) for k, v in small_model.state_dict().items())
