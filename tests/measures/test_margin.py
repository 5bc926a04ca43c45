"""Losses, margins and divergences against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from defenses.spec import Threat
from measures import Context, Undefined
from measures.average_ce import average_ce
from measures.controls import ece, entropy, logit_norm, train_accuracy
from measures.kl_divergence import kl_divergence
from measures.margins import inverse_margin, margin_percentile, prob_margin

Build = Callable[..., nn.Sequential]
MakeContext = Callable[..., Context]


def test_uniform_logits_cost_log_k(linear: Build, context: MakeContext) -> None:
    flat = context(linear(torch.zeros(3, 8)))
    assert average_ce(flat, on="clean") == pytest.approx(math.log(3))
    assert average_ce(flat, on="adversarial") == pytest.approx(math.log(3))
    assert entropy(flat, on="clean") == pytest.approx(math.log(3))


def test_average_ce_is_a_mean_over_examples(linear: Build, context: MakeContext) -> None:
    measured = context(linear((3, 8)), batch_size=7)  # 40 images: the last batch is smaller
    p = measured.model(measured.images).softmax(dim=1)
    by_hand = -p[torch.arange(40), measured.labels].log().mean()
    assert average_ce(measured, on="clean") == pytest.approx(float(by_hand), rel=1e-6)


def test_linear_margin_under_attack(linear: Build, context: MakeContext, labels: Tensor) -> None:
    """Two classes, no box: PGD takes eps·‖w_0 - w_1‖₁ from every margin."""
    model = linear((2, 8))
    measured = context(model, y=labels.clamp_max(1))
    rows = model[1].weight.detach()
    cost = 0.05 * float((rows[0] - rows[1]).abs().sum())
    for percent in (10, 25, 50, 75, 90):
        clean = margin_percentile(measured, on="clean", percent=percent)
        attacked = margin_percentile(measured, on="adversarial", percent=percent)
        assert attacked == pytest.approx(clean - cost, abs=1e-5)


def test_percentiles_are_percentiles(linear: Build, context: MakeContext) -> None:
    measured = context(linear((3, 8)))
    margins = sorted(measured.clean.margins.tolist())
    below = margin_percentile(measured, on="clean", percent=25)
    assert sum(m <= below for m in margins) == 10


def test_inverse_margin_where_it_is_defined(linear: Build, context: MakeContext) -> None:
    weight = torch.zeros(3, 8)
    bias = torch.tensor([4.0, 2.0, 0.0])
    correct = context(linear(weight, bias), y=torch.zeros(40, dtype=torch.int64))
    assert inverse_margin(correct, on="clean") == pytest.approx(1 / 4)
    wrong = context(linear(weight, bias), y=torch.ones(40, dtype=torch.int64))
    with pytest.raises(Undefined, match="margin is not positive"):
        inverse_margin(wrong, on="clean")


def test_prob_margin_of_two_classes_is_tanh(
    linear: Build, context: MakeContext, labels: Tensor
) -> None:
    y = labels.clamp_max(1)
    measured = context(linear((2, 8)), y=y)
    z = measured.model(measured.images).detach()
    sign = 1 - 2 * y.double()
    expected = torch.tanh(sign * (z[:, 0] - z[:, 1]).double() / 2).mean()
    assert prob_margin(measured, on="clean") == pytest.approx(float(expected), abs=1e-6)


def test_prob_margin_range(linear: Build, context: MakeContext) -> None:
    sure = linear(torch.zeros(3, 8), torch.tensor([100.0, 0.0, 0.0]))
    right = context(sure, y=torch.zeros(40, dtype=torch.int64))
    wrong = context(sure, y=torch.ones(40, dtype=torch.int64))
    assert prob_margin(right, on="clean") == pytest.approx(1)
    assert prob_margin(wrong, on="clean") == pytest.approx(-1)


def test_kl_divergence(linear: Build, context: MakeContext, labels: Tensor) -> None:
    measured = context(linear((2, 8)), y=labels.clamp_max(1))
    p = measured.clean.logits.double().softmax(dim=1)[:, 0]
    q = measured.adversarial.logits.double().softmax(dim=1)[:, 0]
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()
    assert kl_divergence(measured) == pytest.approx(float(expected), rel=1e-6)
    assert kl_divergence(measured) > 0
    unmoved = context(linear((2, 8)), y=labels.clamp_max(1), threat=Threat(eps=0.0))
    assert kl_divergence(unmoved) == pytest.approx(0, abs=1e-9)


def test_calibration_error(linear: Build, context: MakeContext) -> None:
    """Confidence p on class 0 always; 10 of 40 labels are 0: ECE = p - 1/4."""
    model = linear(torch.zeros(2, 8), torch.tensor([math.log(4.0), 0.0]))  # p = 0.8
    y = torch.ones(40, dtype=torch.int64)
    y[:10] = 0
    measured = context(model, y=y)
    assert ece(measured, on="clean") == pytest.approx(0.8 - 0.25, abs=1e-6)
    assert train_accuracy(measured, on="clean") == 0.25


def test_logit_norm_ignores_a_common_shift(linear: Build, context: MakeContext) -> None:
    bias = torch.tensor([3.0, 0.0, 0.0])
    plain = logit_norm(context(linear(torch.zeros(3, 8), bias)), on="clean")
    shifted = logit_norm(context(linear(torch.zeros(3, 8), bias + 50)), on="clean")
    assert plain == pytest.approx(math.sqrt(6))  # (2, -1, -1)
    assert shifted == pytest.approx(plain)
