"""Models that hide their gradients are flagged, honest ones are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

from defenses import masking
from defenses.attacks import pgd
from defenses.masking import check
from defenses.spec import Threat

THREAT = Threat(eps=0.15, step_size=0.0375)


class Wrapped(nn.Module):
    def __init__(self, model, function):
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x):
        return self.function(self.model, x)


class RandomGradient(torch.autograd.Function):
    """The identity, with a gradient that has nothing to do with it."""

    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, gradient):
        noise = torch.randn(gradient.shape, generator=torch.Generator().manual_seed(0))
        return noise.to(gradient)


MASKED = {
    "rounded logits": lambda model, x: model(x).round(),
    "saturated logits": lambda model, x: 1000 * model(x),
    "rounded input": lambda model, x: model((8 * x).round() / 8),
    "random gradient": lambda model, x: model(RandomGradient.apply(x)),
}


@pytest.fixture(scope="module")
def images():
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return x, torch.tensor(data.target)


def fitted(images, *, robust):
    """A small net, trained on the first 1,000 digits for a second."""
    x, y = images[0][:1000], images[1][:1000]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(5):
        for rows in torch.randperm(1000, generator=generator).split(50):
            inputs = x[rows]
            if robust:
                inputs = pgd(
                    model, inputs, y[rows], eps=0.15, step_size=0.05, steps=5, generator=generator
                )
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), y[rows]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def standard(images):
    return fitted(images, robust=False)


def survivors(model, x, y):
    start = torch.Generator().manual_seed(1)
    x_adv = pgd(model, x, y, eps=0.15, step_size=0.0375, steps=10, generator=start)
    return model(x_adv).argmax(dim=1) == y


@pytest.mark.parametrize("kind", MASKED)
def test_masked_models_are_flagged(standard, images, kind):
    x, y = images[0][1000:1150], images[1][1000:1150]
    model = Wrapped(standard, MASKED[kind])
    correct = survivors(model, x, y)
    assert correct.double().mean() > 0.5  # PGD-10 is fooled ...
    report = check(model, x, y, threat=THREAT, correct_pgd=correct)
    assert report.masking  # ... the check is not
    assert report.reason is not None
    assert report.black_box > 0.05
    assert report.zero_gradient == pytest.approx(
        0 if kind == "random gradient" else float(correct.double().mean()), abs=0.1
    )


@pytest.mark.parametrize("robust", [False, True])
def test_honest_models_are_not_flagged(standard, images, robust):
    x, y = images[0][1000:1200], images[1][1000:1200]
    model = fitted(images, robust=True) if robust else standard
    correct = survivors(model, x, y)
    report = check(model, x, y, threat=THREAT, correct_pgd=correct)
    assert not report.masking
    assert report.reason is None


def test_few_images_are_enough_to_flag_what_is_plainly_masked(standard, images):
    x, y = images[0][1000:1032], images[1][1000:1032]
    model = Wrapped(standard, MASKED["rounded input"])
    report = check(model, x, y, threat=THREAT, correct_pgd=survivors(model, x, y))
    assert report.masking


@pytest.mark.parametrize("steps", [4, 10])
def test_a_difference_must_be_large_and_not_by_chance(standard, images, monkeypatch, steps):
    """With attacks whose outcomes are drawn: what one of them breaks, the other may miss."""
    x, y = images[0][1000:1128], images[1][1000:1128]
    right = standard(x).argmax(dim=1) == y
    x, y = x[right], y[right]
    x_broken = x[(y[:, None] != y[None, :]).int().argmax(dim=1)]  # an image of another class
    draws = np.random.default_rng(0)
    honest = masked = 0

    def compared(by_pgd, second):
        x_adv = torch.where(second[:, None, None, None], x, x_broken)

        def more_steps(*_, **options):
            assert options["steps"] == 5 * steps
            return x_adv

        monkeypatch.setattr(masking, "pgd", more_steps)
        monkeypatch.setattr(masking, "square", lambda *_, **__: x_adv)
        return check(standard, x, y, threat=THREAT, correct_pgd=by_pgd, steps=steps)

    for _ in range(150):
        by_pgd = torch.from_numpy(draws.random(len(x)) < 0.5)
        apart = torch.from_numpy(draws.random(len(x)) < 0.2)
        honest += compared(by_pgd, by_pgd ^ apart).masking  # as strong, on other examples
        report = compared(by_pgd, by_pgd & ~apart)  # breaks the same, and more
        more = int((by_pgd & apart).sum())
        assert report.black_box == pytest.approx(more / len(x))
        assert report.masking == (more / len(x) > 0.05 and 0.5**more < 0.01)
        if report.masking:
            masked += 1
            share = f"another {more / len(x):.1%} ({more} of {len(x)} examples more, 0 fewer)"
            assert report.reason.startswith(f"PGD-{steps} leaves")
            assert f"Square with 300 queries breaks {share}" in report.reason
    assert honest <= 3, "1 % for each of two checks"
    assert masked > 75


def test_batch_size_does_not_matter(standard, images):
    x, y = images[0][1000:1060], images[1][1000:1060]
    correct = torch.ones_like(y, dtype=torch.bool)
    reports = [
        check(standard, x, y, threat=THREAT, correct_pgd=correct, batch_size=size)
        for size in (60, 13)
    ]
    assert reports[0] == reports[1]


def test_sizes_must_agree(standard, images):
    with pytest.raises(ValueError, match="correct_pgd has shape"):
        check(
            standard, images[0][:5], images[1][:5], threat=THREAT, correct_pgd=torch.ones(4).bool()
        )
