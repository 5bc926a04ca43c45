"""A folded network is the same function, and nothing remains of it afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from defenses.architectures import build
from defenses.datasets import Data
from defenses.folding import folded
from defenses.methods import InnerAttack, make_method
from defenses.randomness import generator
from defenses.spec import Recipe, TrainingSpec
from defenses.training import train

# resnet18: the stem, two in each of 8 blocks, three shortcuts. Wide: one in each block, the other
# batch norms come after an addition.
FOLDED = {"resnet18": 20, "resnet_small": 6, "wrn10_1": 3, "wrn16_small": 6}


def used(name: str) -> nn.Module:
    """A network in float64 whose batch norms are all different from doing nothing."""
    model = build(name, num_classes=10).double()
    stream = generator("folding", name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=stream)
            module.running_var.uniform_(0.3, 3, generator=stream)
            nn.init.uniform_(module.weight, 0.3, 2, generator=stream)
            nn.init.normal_(module.bias, generator=stream)
    return model


def batch_norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize(("name", "count"), FOLDED.items())
def test_same_logits_and_gradients(name: str, count: int) -> None:
    model = used(name).eval()
    x = torch.rand(4, 3, 32, 32, dtype=torch.float64, generator=generator("folding", "images"))
    x.requires_grad_(True)
    before = batch_norms(model)
    expected = model(x)
    (gradient,) = torch.autograd.grad(expected.square().sum(), x)
    with folded(model):
        assert batch_norms(model) == before - count
        logits = model(x)
        (of_folded,) = torch.autograd.grad(logits.square().sum(), x)
    assert not torch.equal(logits, expected)
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(of_folded, gradient, rtol=1e-8, atol=1e-8 * float(gradient.max()))


def test_afterwards_the_model_is_its_old_self_even_after_an_error() -> None:
    model = used("resnet_small").train()
    parameters = dict(model.named_parameters())
    state = copy.deepcopy(model.state_dict())
    modules = list(model.named_modules())
    with pytest.raises(KeyError), folded(model):
        raise KeyError
    assert list(model.named_modules()) == modules
    assert all(module.training for module in model.modules())
    after = dict(model.named_parameters())
    assert list(after) == list(parameters)
    assert all(after[key] is parameters[key] for key in parameters)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_weights_that_have_moved_are_folded_anew() -> None:
    model = used("wrn10_1").eval()
    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    with folded(model):
        old = model(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    with folded(model):
        torch.testing.assert_close(model(x), model(x))
        new = model(x)
    torch.testing.assert_close(new, model(x))
    assert not torch.allclose(new, old)


class Twice(nn.Module):
    """Its convolution's output goes to a batch norm and elsewhere; another is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        self.norm1, self.norm2 = nn.BatchNorm2d(1), nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        out = out + self.norm1(out)
        return self.norm2(self.conv2(self.norm2(self.conv2(out))))


def test_what_is_used_twice_stays() -> None:
    model = Twice().eval()
    with folded(model):
        assert batch_norms(model) == 2


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_cannot_be_traced_is_refused_in_words() -> None:
    with (
        pytest.raises(ValueError, match="fold_batch_norm=true needs a network"),
        folded(Branching()),
    ):
        pass


@pytest.mark.parametrize("name", ["at", "trades", "mart"])
def test_methods_craft_almost_the_same_images(
    name: str, small_model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch

    def crafted(*, fold: bool) -> Tensor:
        attack = InnerAttack(
            eps=0.15,
            step_size=0.04,
            steps=5,
            fold_batch_norm=fold,
            generator=generator("folding", "craft"),
        )
        return make_method(name, {}).adversarial(small_model, x, y, attack)

    plain, with_folding = crafted(fold=False), crafted(fold=True)
    assert (plain - with_folding).abs().mean() < 1e-3  # single pixels may go the other way
    assert small_model.training


def test_no_folding_of_a_model_in_training_mode(
    small_model: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch
    method = make_method("grad_align", {})
    images = []
    for fold in (False, True):
        attack = InnerAttack(
            eps=0.15, step_size=0.04, steps=1, mode=method.attack_mode, fold_batch_norm=fold,
            generator=generator("folding", "craft"),
        )  # fmt: skip
        images.append(method.adversarial(small_model, x, y, attack))
    assert torch.equal(*images)


def test_trains_as_well(
    make_spec: Callable[..., TrainingSpec], digits: Data, tmp_path: Path
) -> None:
    losses = {}
    for fold in (False, True):
        spec = make_spec("at", fold_batch_norm=fold, epochs=3)
        folder = tmp_path / str(fold)
        result = train(spec, digits, folder, training_id="id", device="cpu")
        losses[fold] = result.history[2]["loss"]
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    with pytest.raises(ValueError, match="choose one of the two"):
        Recipe(compile=True, fold_batch_norm=True)
