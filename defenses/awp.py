"""Adversarial weight perturbation: the loss is minimised at the worst weights nearby.

Wu, Xia & Wang, "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020,
https://arxiv.org/abs/2004.05884, algorithm 1. Works with every method. Two published forms:

``layerwise``, the authors' code: the perturbation of each convolution's and linear layer's weights
has ``gamma`` times their norm; other parameters stay. The adversarial images are made once and
used for the perturbation and for the step, and batch norm counts only the second pass.

``global``, that of MAIR (https://github.com/Harry24k/MAIR): all parameters together move by
``gamma`` times their joint norm. The adversarial images are made anew at the perturbed weights,
and batch norm counts both passes.

In both the step's gradient is that at the perturbed weights, and is applied to the original ones,
weight decay included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from defenses.methods.base import InnerAttack, LossTerms, Method, autocast
from defenses.spec import PerturbationForm, Precision, WeightPerturbation

TINY = 1e-16  # added to norms that are divided by


def perturbed_gradients(
    model: nn.Module,
    method: Method,
    x: Tensor,
    y: Tensor,
    attack: InnerAttack,
    awp: WeightPerturbation,
    *,
    precision: Precision = "fp32",
    loss_scale: Tensor | None = None,
) -> LossTerms:
    """Leave in ``.grad`` the gradient of the loss at the perturbed weights, which are taken back.

    Returns the loss at the perturbed weights. ``loss_scale`` multiplies what is differentiated
    (fp16); the perturbation does not depend on it. Where it makes a gradient overflow, nothing is
    perturbed and ``.grad`` is not finite, so that the scaler skips the step and lowers the scale.
    """
    scaled = loss_scale is not None

    def differentiate(x_adv: Tensor) -> LossTerms:
        with autocast(x.device, precision):
            terms = method.objective(model, x, x_adv, y)
        total = terms.total if loss_scale is None else terms.total * loss_scale
        total.backward()
        return terms

    x_adv = method.adversarial(model, x, y, attack)
    if awp.form == "layerwise":
        with unchanged_statistics(model):
            differentiate(x_adv)
        with worst_weights(model, awp.gamma, awp.form, may_overflow=scaled):
            return differentiate(x_adv)
    differentiate(x_adv)
    with worst_weights(model, awp.gamma, awp.form, may_overflow=scaled):
        return differentiate(method.adversarial(model, x, y, attack))


@contextmanager
def worst_weights(
    model: nn.Module, gamma: float, form: PerturbationForm, *, may_overflow: bool = False
) -> Iterator[None]:
    """Inside, the weights are moved along ``.grad``, which is then cleared; afterwards as before.

    The restored weights are bit for bit the original ones. ``may_overflow``: where ``.grad`` is not
    finite, the weights stay where they are, and the ``.grad`` made inside becomes NaN.
    """
    moved = [p for p in model.parameters() if p.grad is not None]
    if form == "layerwise":
        moved = [p for p in moved if p.ndim > 1]
    weights = [p.data for p in moved]
    gradients = [p.grad for p in moved if p.grad is not None]
    originals = [w.clone() for w in weights]
    sizes = _move_sizes(weights, gradients, gamma, form)
    moves = list(torch._foreach_mul(gradients, sizes))
    finite = _all_finite(gradients) if may_overflow else None
    if finite is not None:  # without asking the device, for which it would have to wait
        moves = [torch.where(finite, move, 0) for move in moves]
    torch._foreach_add_(weights, moves)
    for parameter in model.parameters():
        parameter.grad = None
    try:
        yield
    finally:
        torch._foreach_copy_(weights, originals)
    if finite is not None:
        found = [p.grad for p in model.parameters() if p.grad is not None]
        torch._foreach_mul_(found, torch.where(finite, 1.0, torch.nan))


def _move_sizes(
    weights: list[Tensor], gradients: list[Tensor], gamma: float, form: PerturbationForm
) -> list[Tensor]:
    """Factors of the gradients: gamma ||w|| / ||g||, of each tensor or of all together."""
    weight_norms = torch.stack(list(torch._foreach_norm(weights)))
    gradient_norms = torch.stack(list(torch._foreach_norm(gradients)))
    if form == "layerwise":
        return list((gamma * weight_norms / (gradient_norms + TINY)).unbind())
    ratio = gamma * weight_norms.norm() / (gradient_norms.norm() + TINY)
    return [ratio] * len(weights)


def _all_finite(tensors: list[Tensor]) -> Tensor:
    return torch.stack(list(torch._foreach_norm(tensors))).isfinite().all()


@contextmanager
def unchanged_statistics(model: nn.Module) -> Iterator[None]:
    """Whatever happens to buffers inside (batch norm's running statistics) is undone."""
    buffers = list(model.buffers())
    originals = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, original in zip(buffers, originals, strict=True):
            buffer.copy_(original)
