"""Two adversarially trained models to attack: one on digits, one on images of CIFAR's size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from defenses.attacks import pgd


@dataclass(frozen=True)
class Victim:
    """A trained model, images it was not trained on, and the eps it was trained at."""

    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float

    def accuracy(self, x_adv: Tensor) -> float:
        """In percent, so that differences read as points."""
        with torch.no_grad():
            correct = self.model(x_adv).argmax(dim=1) == self.y
        return 100 * float(correct.double().mean())

    def strength(self, norm: str) -> float:
        """An eps that breaks some examples and leaves others."""
        return self.eps if norm == "linf" else 0.4 * self.eps * self.x[0].numel() ** 0.5

    def assert_inside(self, x_adv: Tensor, norm: str) -> None:
        """The box holds exactly, the ball to 1e-6; distances in double precision."""
        delta = (x_adv.double() - self.x.double()).flatten(1)
        sizes = delta.abs().amax(dim=1) if norm == "linf" else delta.square().sum(dim=1).sqrt()
        assert float(sizes.max()) <= self.strength(norm) + 1e-6
        assert float(x_adv.min()) >= 0
        assert float(x_adv.max()) <= 1

    def points(self, limit: float) -> float:
        """``limit`` percentage points, and one image: with few images one can be more than that."""
        return limit + 100 / len(self.x)

    def first(self, count: int) -> Victim:
        return replace(self, x=self.x[:count], y=self.y[:count])


def digits(size: int) -> tuple[Tensor, Tensor]:
    """The 1,797 digits in [0, 1], shuffled; at 32 pixels in three channels."""
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    if size != 8:
        x = F.interpolate(x, size=size, mode="bilinear").repeat(1, 3, 1, 1).clamp(0, 1)
    return x[order], torch.tensor(data.target)[order]


def train(size: int, *, eps: float, epochs: int, train_size: int) -> Victim:
    """A small convolutional net after PGD-3 adversarial training."""
    x, y = digits(size)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(x.shape[1], 16, 3, stride=size // 8, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(32 * 16, 10),
        )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(epochs):
        for rows in torch.randperm(train_size, generator=generator).split(64):
            x_adv = pgd(
                model, x[rows], y[rows], eps=eps, step_size=eps / 2, steps=3, generator=generator
            )
            optimizer.zero_grad()
            F.cross_entropy(model(x_adv), y[rows]).backward()
            optimizer.step()
    return Victim(model.eval(), x[train_size:], y[train_size:], eps)


@pytest.fixture(scope="session")
def digits_victim() -> Victim:
    """Near 98 % clean and 70 % robust on 300 images of 8 x 8."""
    return train(8, eps=0.15, epochs=6, train_size=1300).first(300)


@pytest.fixture(scope="session")
def cifar_size_victim() -> Victim:
    """On 150 images of 3 x 32 x 32."""
    return train(32, eps=24 / 255, epochs=3, train_size=1000).first(150)


@pytest.fixture(params=["digits_victim", "cifar_size_victim"])
def victim(request: pytest.FixtureRequest) -> Victim:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Victim)
    return found


class Linear(nn.Module):
    """Two classes of 2 x 2 images, z = ± (w · (x - 1/2) - shift): every distance in closed form."""

    weight = torch.tensor([0.5, -1.0, 1.5, 2.0])
    shift = 0.05

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1) - 0.5) @ self.weight - self.shift
        return torch.stack([-score, score], dim=1)


@dataclass(frozen=True)
class LinearCase:
    """Images far from the box's walls, correctly labelled, with their distance to the boundary."""

    model: nn.Module
    x: Tensor
    y: Tensor

    def distance(self, norm: str) -> Tensor:
        score = self.model(self.x)[:, 1].abs()
        return score / Linear.weight.norm(p=1 if norm == "linf" else 2)


@pytest.fixture(scope="session")
def linear_case() -> LinearCase:
    x = 0.35 + 0.3 * torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    model = Linear()
    return LinearCase(model, x, model(x).argmax(dim=1))
