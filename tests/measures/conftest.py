"""Small models whose measures are known in closed form, and what is needed to measure them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from defenses.attacks import pgd
from defenses.spec import Threat
from measures import Context


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    """Standard normal numbers of a shape, the same in every run."""
    stream = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=stream)

    return numbers


@pytest.fixture
def linear(draw: Callable[..., Tensor]) -> Callable[..., nn.Sequential]:
    """logits = W x + b; ``linear(weight)`` without bias, or random of shape (rows, columns)."""

    def build(weight: Tensor | tuple[int, int], bias: Tensor | None = None) -> nn.Sequential:
        rows = draw(*weight) if isinstance(weight, tuple) else weight
        layer = nn.Linear(rows.shape[1], rows.shape[0], bias=bias is not None)
        layer.weight = nn.Parameter(rows.clone())
        if bias is not None:
            layer.bias = nn.Parameter(bias.clone())
        return nn.Sequential(nn.Flatten(), layer)

    return build


@pytest.fixture
def relu_net(draw: Callable[..., Tensor]) -> nn.Sequential:
    """A bias-free ReLU network 8 -> 6 -> 5 -> 3: positively homogeneous in every layer."""
    sizes = [(6, 8), (5, 6), (3, 5)]
    layers: list[nn.Module] = []
    for shape in sizes:
        layer = nn.Linear(shape[1], shape[0], bias=False)
        layer.weight = nn.Parameter(draw(*shape) / 2)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.fixture
def rescaled(relu_net: nn.Sequential) -> nn.Sequential:
    """``relu_net`` with its first layer times 10, its second by 1/10: the same function."""
    other = copy.deepcopy(relu_net)
    with torch.no_grad():
        other[0].weight *= 10
        other[2].weight /= 10
    return other


@pytest.fixture
def images(draw: Callable[..., Tensor]) -> Tensor:
    """40 images of 8 pixels, away from 0 and 1 so that small perturbations meet no box."""
    return 0.3 + 0.4 * draw(40, 8).sigmoid()


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(0, 3, (40,), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def context(images: Tensor, labels: Tensor) -> Callable[..., Context]:
    """A context for a model on the images above, at a threat of eps 0.05 unless told otherwise."""

    def build(
        model: nn.Module,
        x: Tensor = images,
        y: Tensor = labels,
        threat: Threat | None = None,
        **options: Any,
    ) -> Context:
        chosen = threat or Threat(eps=0.05, step_size=0.0125)
        return Context(model, x, y, threat=chosen, **options)

    return build


def explicit_hessian(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Hessian of the mean cross-entropy by all parameters, entry by entry, in float64."""
    from torch.func import functional_call

    parameters = {name: p.detach().double() for name, p in model.named_parameters()}
    sizes = [p.numel() for p in parameters.values()]

    def loss(vector: Tensor) -> Tensor:
        parts = vector.split(sizes)
        weights = {
            name: part.view(p.shape)
            for (name, p), part in zip(parameters.items(), parts, strict=True)
        }
        return nn.functional.cross_entropy(functional_call(model, weights, (x.double(),)), y)

    vector = torch.cat([p.flatten() for p in parameters.values()])
    return torch.autograd.functional.hessian(loss, vector)


@pytest.fixture
def hessian() -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    return explicit_hessian


def build_small() -> nn.Module:
    with torch.random.fork_rng():  # layers draw from the global generator, measures must not
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 4, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 3),
        )
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3, generator=stream)
            elif parameter.numel() == 3:
                parameter.zero_()
    return network


@pytest.fixture
def model() -> nn.Module:
    """Small, with batch-norm behind a convolution and behind a ReLU, in training mode, with
    statistics of its own."""
    network = build_small()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    return network


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    stream = torch.Generator().manual_seed(0)
    return torch.rand(24, 1, 8, 8, generator=stream), torch.randint(0, 3, (24,), generator=stream)


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """The digits 0, 1 and 2: 8x8 pixels, three classes, as ``build_small`` takes them."""
    found = load_digits(n_class=3)
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    return images, torch.tensor(found.target)


@pytest.fixture(scope="session")
def fitted(digits: tuple[Tensor, Tensor]) -> nn.Module:
    """``build_small`` after a second of adversarial training at eps 0.1, in training mode: nearly
    all margins are positive there, so that every measure has a value. Copy it to change it."""
    images, labels = digits
    network = build_small()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    stream = torch.Generator().manual_seed(0)
    for _ in range(10):
        for rows in torch.randperm(len(labels), generator=stream).split(50):
            x, y = images[rows], labels[rows]
            x = pgd(network, x, y, eps=0.1, step_size=0.05, steps=3, generator=stream)
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
    network.zero_grad()
    return network
