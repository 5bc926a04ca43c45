"""PGD against torchattacks, against closed forms, and what it must leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from defenses.architectures import build
from defenses.attacks import fgsm, pgd
from defenses.attacks.losses import LOSSES
from defenses.randomness import generator

THREATS = {"linf": (0.1, 0.025), "l2": (0.7, 0.2)}


@pytest.fixture
def model() -> nn.Module:
    """An untrained network in training mode whose batch norm has seen some images."""
    model = build("resnet_small", num_classes=10, in_channels=1, image_size=8)
    model(torch.rand(32, 1, 8, 8, generator=generator("tests", "warm-up")))
    return model


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    stream = generator("tests", "pgd")
    return torch.rand(16, 1, 8, 8, generator=stream), torch.randint(10, (16,), generator=stream)


class Linear(nn.Module):
    """Logits (w x, -w x): the worst perturbation is known in closed form."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.weight
        return torch.stack([score, -score], dim=1)


def reference(norm: str, model: nn.Module, **options: Any) -> Any:
    eps, step_size = THREATS[norm]
    attack = torchattacks.PGD if norm == "linf" else torchattacks.PGDL2
    return attack(model, eps=eps, alpha=step_size, steps=10, **options)


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("targeted", [False, True])
def test_same_images_as_torchattacks_from_the_same_start(
    norm: str, targeted: bool, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    model.eval()
    eps, step_size = THREATS[norm]
    theirs = reference(norm, model, random_start=False)
    if targeted:
        theirs.set_mode_targeted_by_label(quiet=True)
    ours = pgd(
        model, x, y, eps=eps, step_size=step_size, steps=10, norm=norm, targeted=targeted,
        random_start=False,
    )  # fmt: skip
    assert (ours - x).abs().max() > 0.01
    torch.testing.assert_close(ours, theirs(x, y), rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", THREATS)
def test_same_images_as_torchattacks_from_a_random_start(
    norm: str, model: nn.Module, images: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchattacks draws its start from the global generator; replay it and pass it on."""
    x, y = images
    model.eval()
    eps, step_size = THREATS[norm]
    torch.manual_seed(3)
    theirs = reference(norm, model, random_start=True)(x, y)
    torch.manual_seed(3)
    if norm == "linf":
        start = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    else:
        direction = torch.empty_like(x).normal_()
        radius = torch.zeros(len(x), 1, 1, 1).uniform_(0, 1)
        length = direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        start = (x + direction * radius / length * eps).clamp(0, 1)
    ours = pgd(model, x, y, eps=eps, step_size=step_size, steps=10, norm=norm, start=start)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_reaches_the_linf_optimum_of_a_linear_model() -> None:
    stream = generator("tests", "linear")
    model = Linear(torch.randn(64, generator=stream))
    x = torch.rand(8, 1, 8, 8, generator=stream)
    y = torch.randint(2, (8,), generator=stream)
    eps = 0.2
    away = torch.where(y[:, None] == 0, -1.0, 1.0) * model.weight.sign()
    optimum = (x.flatten(1) + eps * away).clamp(0, 1)
    found = pgd(model, x, y, eps=eps, step_size=0.05, steps=12, generator=stream)
    torch.testing.assert_close(found.flatten(1), optimum, rtol=0, atol=1e-6)


def test_reaches_the_l2_optimum_of_a_linear_model() -> None:
    """Far from the box, the optimum is eps along the weights."""
    stream = generator("tests", "linear")
    model = Linear(torch.randn(64, generator=stream))
    x = torch.full((8, 1, 8, 8), 0.5)
    y = torch.randint(2, (8,), generator=stream)
    away = torch.where(y[:, None] == 0, -1.0, 1.0) * model.weight / model.weight.norm()
    found = pgd(model, x, y, eps=0.4, step_size=0.2, steps=40, norm="l2", generator=stream)
    torch.testing.assert_close(found.flatten(1), 0.5 + 0.4 * away, rtol=0, atol=1e-4)


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_targeted_ascent_reaches_for_the_target(
    loss: str, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    model.eval()
    found = pgd(
        model, x, y, eps=0.2, step_size=0.05, steps=10, loss=loss, targeted=True, random_start=False
    )
    before, after = (LOSSES[loss](model(images), y) for images in (x, found))
    assert (after < before - 1e-3).all()


def test_fgsm_is_one_full_step_from_the_image(
    model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    x, y = images
    model.eval()
    probe = x.clone().requires_grad_(True)
    nn.functional.cross_entropy(model(probe), y).backward()
    assert probe.grad is not None
    expected = (x + 0.1 * probe.grad.sign()).clamp(0, 1)
    torch.testing.assert_close(fgsm(model, x, y, eps=0.1), expected, rtol=0, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(0, 0.5),
    step_size=st.floats(0, 1),
    seed=st.integers(0, 1000),
    contrast=st.floats(0, 1),
)
def test_stays_in_ball_and_box(
    norm: Any, eps: float, step_size: float, seed: int, contrast: float
) -> None:
    """Also for images on the border of the box, and steps larger than the ball."""
    stream = generator(seed, "tests")
    x = (0.5 + (torch.rand(4, 1, 8, 8, generator=stream) - 0.5) * 2 * contrast).clamp(0, 1)
    x[0] = x[0].round()
    y = torch.randint(2, (4,), generator=stream)
    model = Linear(torch.randn(64, generator=stream))
    found = pgd(
        model, x, y, eps=eps, step_size=step_size, steps=3, norm=norm, generator=stream
    ).double()
    delta = (found - x.double()).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert float(size.max()) <= eps + 1e-6
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_leaves_the_model_as_it_was(
    mode: Any, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    """Statistics, gradients, and each module's own mode: here one batch norm is frozen."""
    x, y = images
    frozen_norm = next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    frozen_norm.eval()
    fixed = next(model.parameters())
    fixed.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    pgd(model, x, y, eps=0.1, step_size=0.02, steps=3, generator=generator(0, ""), mode=mode)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all((p.grad == 1).all() for p in model.parameters() if p.grad is not None)


def test_restores_the_mode_when_the_model_raises(images: tuple[Tensor, Tensor]) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("broken")

    model = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        pgd(model, *images, eps=0.1, step_size=0.1, steps=1, random_start=False)
    assert model.training


def test_attacks_the_model_in_eval_mode(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    """The same images whether the caller was training or not; not so if train mode is asked for."""
    x, y = images
    options: Any = {"eps": 0.1, "step_size": 0.02, "steps": 3, "random_start": False}
    training = pgd(model.train(), x, y, **options)
    assert torch.equal(training, pgd(model.eval(), x, y, **options))
    assert not torch.equal(training, pgd(model.eval(), x, y, mode="train", **options))


def test_works_inside_no_grad_and_keeps_the_dtype(images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    model = Linear(torch.ones(64, dtype=torch.float64))
    with torch.no_grad():
        found = pgd(model, x.double(), y % 2, eps=0.1, step_size=0.05, steps=2, random_start=False)
    assert found.dtype == torch.float64
    assert not found.requires_grad


def test_eps_zero_returns_the_image(model: nn.Module, images: tuple[Tensor, Tensor]) -> None:
    x, y = images
    for norm in THREATS:
        found = pgd(
            model, x, y, eps=0, step_size=0.1, steps=3, norm=norm, generator=generator(0, "")
        )
        torch.testing.assert_close(found, x, rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"eps": -0.1}, "eps=-0.1 must be at least 0"),
        ({"step_size": -1}, "step_size=-1 must be"),
        ({"steps": -1}, "steps=-1 must be"),
        ({"norm": "l1"}, "choose one of: linf, l2"),
        ({"loss": "hinge"}, "choose one of: ce, margin"),
    ],
)
def test_names_what_is_valid(
    wrong: dict[str, Any], message: str, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    options: dict[str, Any] = {"eps": 0.1, "step_size": 0.1, "steps": 1, "random_start": False}
    with pytest.raises(ValueError, match=message):
        pgd(model, *images, **(options | wrong))
