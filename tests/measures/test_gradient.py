"""Gradient norms and the scatter of gradients against closed forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from measures import Context, Undefined
from measures.gradient_norms import w_grad_norm, x_grad_norm
from measures.gradient_variance import gradient_cosine, gradient_variance

Build = Callable[..., nn.Sequential]
MakeContext = Callable[..., Context]


def residual(measured: Context) -> Tensor:
    """p - e_y ``(N, K)`` of a linear model, float64."""
    logits = measured.model(measured.images).detach().double()
    return logits.softmax(dim=1) - nn.functional.one_hot(measured.labels, logits.shape[1])


@pytest.mark.parametrize("batch_size", [7, 256])
def test_input_gradient_of_a_linear_model(
    linear: Build, context: MakeContext, batch_size: int
) -> None:
    measured = context(linear((3, 8)), batch_size=batch_size)
    weight = measured.model[1].weight.detach().double()
    gradients = residual(measured) @ weight
    for norm, order in (("l1", 1), ("l2", 2)):
        expected = float(gradients.norm(p=order, dim=1).mean())
        assert x_grad_norm(measured, on="clean", norm=norm) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch_size", [7, 256])
def test_weight_gradient_of_a_linear_model(
    linear: Build, context: MakeContext, batch_size: int
) -> None:
    measured = context(linear((3, 8)), batch_size=batch_size)
    expected = (residual(measured).T @ measured.images.double() / 40).norm()
    assert w_grad_norm(measured, on="clean") == pytest.approx(float(expected), rel=1e-5)


def test_adversarial_gradients_are_taken_at_the_adversarial_examples(
    linear: Build, context: MakeContext
) -> None:
    measured = context(linear((3, 8)))
    there = context(linear((3, 8)), x=measured.adversarial.images)
    there.model = measured.model
    expected = x_grad_norm(there, on="clean", norm="l2")
    assert x_grad_norm(measured, on="adversarial", norm="l2") == pytest.approx(expected)


def test_gradient_scatter(linear: Build, context: MakeContext) -> None:
    measured = context(linear((3, 8)))
    rows = (residual(measured)[:, :, None] * measured.images.double()[:, None, :]).flatten(1)
    batches = rows.view(5, 8, -1).mean(dim=1)
    variance = float(batches.var(dim=0).sum())
    assert gradient_variance(measured, on="clean", size=8) == pytest.approx(variance, rel=1e-4)
    unit = nn.functional.normalize(batches, dim=1)
    cosines = (unit @ unit.T)[~torch.eye(5, dtype=torch.bool)]
    found = gradient_cosine(measured, on="clean", size=8)
    assert found == pytest.approx(float(cosines.mean()), rel=1e-4)


def test_scatter_needs_two_batches(linear: Build, context: MakeContext) -> None:
    with pytest.raises(Undefined, match="two batches of 32 need 64 images, not 40"):
        gradient_variance(context(linear((3, 8))), on="clean")
