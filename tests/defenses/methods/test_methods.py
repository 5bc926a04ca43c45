"""Each method's loss and gradient against its paper's formula, computed naively in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defenses import methods
from defenses.methods import METHODS, InnerAttack, Method, make_method
from defenses.methods.base import LossTerms
from defenses.randomness import generator

Batch = tuple[Tensor, Tensor]


def softmax(z: Tensor) -> Tensor:
    return z.exp() / z.exp().sum(dim=1, keepdim=True)


def cross_entropy(p: Tensor, y: Tensor) -> Tensor:
    return torch.stack([-p[i, y[i]].log() for i in range(len(y))]).mean()


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum(dim=1)


def naive_standard(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(softmax(model(x)), y)


def naive_at(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(softmax(model(x_adv)), y)


def naive_trades(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    p, q = softmax(model(x)), softmax(model(x_adv))
    return cross_entropy(p, y) + 6 * kl(p, q).mean()


def naive_mart(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    p, q = softmax(model(x)), softmax(model(x_adv))
    losses = []
    for i, label in enumerate(y.tolist()):
        wrong = max(q[i, k].item() for k in range(q.shape[1]) if k != label)
        strongest = next(k for k in range(q.shape[1]) if k != label and q[i, k].item() == wrong)
        bce = -q[i, label].log() - (1 - q[i, strongest]).log()
        losses.append(bce + 5 * kl(p, q)[i] * (1 - p[i, label]))
    return torch.stack(losses).mean()


def naive_grad_align(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
    attacked, near = x_adv[: len(x)], x_adv[len(x) :]

    def direction(images: Tensor) -> Tensor:
        images = images.clone().requires_grad_(True)
        loss = cross_entropy(softmax(model(images)), y)
        gradient = torch.autograd.grad(loss, images, create_graph=True)[0].flatten(1)
        return gradient / gradient.square().sum(dim=1, keepdim=True).sqrt()

    cosine = (direction(x) * direction(near)).sum(dim=1).mean()
    return cross_entropy(softmax(model(attacked)), y) + 0.2 * (1 - cosine)


NAIVE: dict[str, Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]] = {
    "standard": naive_standard,
    "at": naive_at,
    "trades": naive_trades,
    "mart": naive_mart,
    "grad_align": naive_grad_align,
}


def attack_with(**changes: Any) -> InnerAttack:
    options: dict[str, Any] = {"eps": 0.15, "step_size": 0.04, "steps": 3}
    return InnerAttack(**(options | changes), generator=generator("tests", "attack"))


def gradient_of(model: nn.Module, total: Tensor) -> Tensor:
    gradients = torch.autograd.grad(total, list(model.parameters()))
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("name", METHODS)
def test_loss_and_gradient_equal_the_formula(
    name: str, small_model: nn.Module, batch: Batch
) -> None:
    """In float64, in training mode, on a scaled-up output so that some images are wrong."""
    model = small_model.double()
    with torch.no_grad():
        next(m for m in model.modules() if isinstance(m, nn.Linear)).weight.mul_(8)
    x, y = batch[0].double(), batch[1]
    method = make_method(name, {})
    x_adv = method.craft(model, x, y, attack_with())
    other = copy.deepcopy(model)
    ours, theirs = method.objective(model, x, x_adv, y).total, NAIVE[name](other, x, x_adv, y)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    torch.testing.assert_close(
        gradient_of(model, ours), gradient_of(other, theirs), rtol=1e-6, atol=1e-8
    )


@pytest.mark.parametrize("name", METHODS)
def test_single_precision_is_close_too(name: str, small_model: nn.Module, batch: Batch) -> None:
    x, y = batch
    method = make_method(name, {})
    x_adv = method.craft(small_model, x, y, attack_with())
    theirs = NAIVE[name](copy.deepcopy(small_model).double(), x.double(), x_adv.double(), y)
    ours = method.objective(small_model, x, x_adv, y).total
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_terms_add_up_and_reach_every_parameter(
    name: str, small_model: nn.Module, batch: Batch
) -> None:
    method = make_method(name, {})
    terms: LossTerms = method.loss(small_model, *batch, attack_with())
    weights = {"trades": {"kl": 6}, "mart": {"kl": 5}, "grad_align": {"misalignment": 0.2}}
    total = sum(weights.get(name, {}).get(k, 1) * float(v) for k, v in terms.terms.items())
    assert terms.total.item() == pytest.approx(total, rel=1e-5)
    terms.total.backward()
    for parameter in small_model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("name", [n for n in METHODS if METHODS[n].needs_inner_maximisation])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_crafted_images_stay_in_ball_and_box(
    name: str, norm: Any, precision: Any, small_model: nn.Module, batch: Batch
) -> None:
    x, y = batch
    state = {key: value.clone() for key, value in small_model.state_dict().items()}
    method = make_method(name, {})
    attack = attack_with(norm=norm, precision=precision, mode=method.attack_mode)
    for part in method.craft(small_model, x, y, attack).split(len(x)):
        assert part.dtype == torch.float32
        delta = (part - x).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
        assert 0.01 < float(size.max()) <= 0.15 + 1e-6
        assert float(part.min()) >= 0
        assert float(part.max()) <= 1
    assert small_model.training
    assert all(torch.equal(v, state[k]) for k, v in small_model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "parameters"), [("at", {}), ("trades", {}), ("trades", {"beta": 0.0})]
)
def test_without_a_ball_it_is_standard_training(
    name: str, parameters: dict[str, float], small_model: nn.Module, batch: Batch
) -> None:
    """At eps 0 the worst image is the image, and TRADES' divergence is 0."""
    standard = make_method("standard", {}).loss(copy.deepcopy(small_model), *batch, attack_with())
    method = make_method(name, parameters)
    loss = method.loss(small_model, *batch, attack_with(eps=0.0))
    assert float(loss.total) == pytest.approx(float(standard.total), rel=1e-6)


def test_trades_needs_its_noise(small_model: nn.Module, batch: Batch) -> None:
    """From x itself the divergence has gradient 0: the start must move, the ascent then gains."""
    x, y = batch
    small_model.eval()
    method = make_method("trades", {})
    x_adv = method.craft(small_model, x, y, attack_with())
    near = method.craft(small_model, x, y, attack_with(steps=0))
    assert 0 < float((near - x).abs().max()) < 0.01
    divergence = [
        float(method.objective(small_model, x, images, y).terms["kl"]) for images in (near, x_adv)
    ]
    assert divergence[1] > 10 * divergence[0]


def test_trades_craft_maximises_the_divergence_not_the_cross_entropy(
    small_model: nn.Module, batch: Batch
) -> None:
    x, y = batch
    method = make_method("trades", {})
    same = method.craft(small_model, x, y, attack_with())
    assert torch.equal(same, method.craft(small_model, x, (y + 1) % 10, attack_with()))


def test_every_method_has_one_file_with_its_paper() -> None:
    folder = Path(methods.__path__[0])
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    assert files == set(METHODS)
    for name, method in METHODS.items():
        document = __import__(method.__module__, fromlist=["_"]).__doc__
        assert name == "standard" or "https://" in document
        assert issubclass(method, Method)


def test_misspelt_options_name_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="choose one of: standard, at, trades, mart"):
        make_method("trade", {})
    with pytest.raises(ValueError, match="no hyperparameter 'betta'; it has: beta"):
        make_method("trades", {"betta": 1})
    with pytest.raises(ValueError, match="it has: none"):
        make_method("at", {"beta": 1})
    with pytest.raises(ValueError, match="must be at least 0"):
        make_method("mart", {"beta": -1})
