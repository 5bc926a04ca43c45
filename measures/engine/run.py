"""Run measures on one model: checked input, each measure on its own, nothing left changed."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from defenses.spec import require
from measures.engine.context import Context
from measures.engine.measure import Estimate, Measure, Result, Undefined


def check_input(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """``ValueError`` for what cannot be measured, before anything is computed."""
    require(
        images.ndim >= 2 and images.is_floating_point(),
        f"images must be a float tensor (N, C, H, W), not {images.dtype} {tuple(images.shape)}",
    )
    require(len(images) > 0, "there are no images to measure on")
    low, high = images.aminmax()
    require(
        bool(low >= 0) and bool(high <= 1),
        f"images must be in [0, 1], but reach from {low:g} to {high:g}; normalisation belongs "
        f"inside the model",
    )
    require(
        labels.shape == (len(images),) and labels.dtype == torch.int64,
        f"labels must be int64 of shape ({len(images)},), not {labels.dtype} {tuple(labels.shape)}",
    )
    for name, tensor in model.state_dict().items():
        finite = not tensor.is_floating_point() or bool(tensor.isfinite().all())
        require(finite, f"the model's {name} holds NaN or infinite values")


def check_output(context: Context) -> None:
    """``ValueError`` unless the model turns the images into finite logits for every label."""
    shape = tuple(context.images.shape[1:])
    try:
        logits = context.logits(context.model, context.images[:1])
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"the model does not take images of shape {shape}: {error}") from error
    require(
        isinstance(logits, Tensor) and logits.ndim == 2 and logits.shape[1] >= 2,
        f"the model must return logits (N, K), not {type(logits).__name__}",
    )
    require(bool(logits.isfinite().all()), "the model's logits are not finite")
    low, high, classes = int(context.labels.min()), int(context.labels.max()), logits.shape[1]
    require(
        low >= 0 and high < classes,
        f"labels reach from {low} to {high}, but the model has {classes} classes",
    )


def run_one(measure: Measure, context: Context, parameters: Mapping[str, Any]) -> Estimate | str:
    """The estimate (``se`` NaN where there is none), or the reason why there is no value."""
    try:
        outcome = measure.function(context, **measure.variant, **parameters)
    except Undefined as undefined:
        return str(undefined)
    except Exception as error:  # noqa: BLE001  a measure that raises fails alone
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    if not isinstance(outcome, Estimate):
        outcome = Estimate(float(outcome), math.nan)
    if not math.isfinite(outcome.value):
        return f"the value is {outcome.value}"
    return outcome


def run_measure(
    measure: Measure, context: Context, parameters: Mapping[str, Any], definition: str
) -> Result:
    """Run one measure and leave the context's model as it was, whatever the measure did."""
    before = versions(context.model)
    start = time.perf_counter()
    with torch.enable_grad(), torch.autocast(context.device.type, enabled=False):
        outcome = run_one(measure, context, parameters)
    if context.device.type == "cuda":
        torch.cuda.synchronize(context.device)
    seconds = time.perf_counter() - start
    if isinstance(outcome, str) or versions(context.model) != before:
        context.renew_model()
    if isinstance(outcome, str):
        return Result(math.nan, None, outcome, seconds, definition)
    se = None if math.isnan(outcome.se) else outcome.se
    return Result(outcome.value, se, None, seconds, definition)


def versions(model: nn.Module) -> list[tuple[int, int, bool]]:
    """Changes when a tensor of the model is replaced or written to, or a module's mode is set.

    torch counts the in-place writes to every tensor, so this needs no copy and no comparison.
    """
    tensors = [*model.parameters(), *model.buffers()]
    modes = [(id(module), 0, module.training) for module in model.modules()]
    return [(id(t), t._version, t.requires_grad) for t in tensors] + modes
