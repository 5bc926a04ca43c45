"""Run measures on one model: checked input, each measure on its own, nothing left changed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from defenses.spec import Threat, require
from measures.engine.context import Context, On
from measures.engine.declared import Declared
from measures.engine.identity import definition_of, merged_parameters
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


Parameters = Mapping[str, Mapping[str, Any]]  # measure -> parameter -> value


@dataclass(frozen=True)
class Job:
    """Measures ready to run on one model: each with its parameters and its definition."""

    context: Context
    chosen: dict[str, Measure]
    parameters: dict[str, dict[str, Any]]
    definitions: dict[str, str]

    def run(self, name: str) -> Result:
        return run_measure(
            name, self.chosen[name], self.context, self.parameters[name], self.definitions[name]
        )

    def prepare_shared(self) -> None:
        """What several measures use, so that none of them is charged for it."""
        needs: frozenset[str] = frozenset().union(*(m.needs for m in self.chosen.values()))
        for which in get_args(On):
            if which in needs:
                _ = self.context.on(which).logits


def job_on(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    chosen: dict[str, Measure],
    *,
    threat: Threat,
    initial_state: dict[str, Tensor] | None = None,
    train_size: int | None = None,
    parameters: Parameters | None = None,
    batch_size: int = 256,
    seed: int = 0,
    watch: Callable[[nn.Module], None] | None = None,
) -> Job:
    """Check everything a user can get wrong, before anything is computed."""
    given = parameters or {}
    unknown = sorted(set(given) - set(chosen))
    require(not unknown, f"parameters are given for measures not chosen: {', '.join(unknown)}")
    require(batch_size >= 1, f"batch_size={batch_size} must be at least 1")
    merged = {name: merged_parameters(name, m, given.get(name, {})) for name, m in chosen.items()}
    check_input(model, images, labels)
    device = next((t.device for t in model.parameters()), images.device)
    context = Context(
        model,
        images.detach().to(device).float(),
        labels.to(device),
        threat=threat,
        initial_state=initial_state,
        train_size=train_size,
        batch_size=batch_size,
        seed=seed,
        gradients_wanted=gradients_wanted(chosen.values()),
        watch=watch,
    )
    check_output(context)
    definitions = {
        name: definition_of(
            name,
            measure,
            given.get(name, {}),
            threat=threat,
            num_images=len(images),
            train_size=train_size,
            seed=seed,
        )
        for name, measure in chosen.items()
    }
    return Job(context, chosen, merged, definitions)


def gradients_wanted(chosen: Iterable[Measure]) -> frozenset[On]:
    """On which images some of the measures want gradients."""
    wanting = [m.needs for m in chosen if "gradients" in m.needs]
    return frozenset(which for which in get_args(On) if any(which in needs for needs in wanting))


def run_one(
    name: str, measure: Measure, context: Context, parameters: Mapping[str, Any]
) -> Estimate | str:
    """The estimate (``se`` NaN where there is none), or the reason why there is no value."""
    seen = cast(Context, Declared(context, name, measure))
    try:
        outcome = measure.function(seen, **measure.variant, **parameters)
        if not isinstance(outcome, Estimate):
            outcome = Estimate(float(outcome), math.nan)
    except Undefined as undefined:
        return str(undefined)
    except (torch.OutOfMemoryError, MemoryError):
        raise  # says something of the machine, not of the model: it must not become the result
    except Exception as error:  # noqa: BLE001  a measure that raises fails alone
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    if not math.isfinite(outcome.value):
        return f"the value is {outcome.value}"
    return outcome


def run_measure(
    name: str, measure: Measure, context: Context, parameters: Mapping[str, Any], definition: str
) -> Result:
    """Run one measure and leave the context's model as it was, whatever the measure did."""
    before = versions(context.model)
    start = time.perf_counter()
    with (
        torch.enable_grad(),
        torch.autocast(context.device.type, enabled=False),
        plain_attention(),
    ):
        outcome = run_one(name, measure, context, parameters)
    if context.device.type == "cuda":
        torch.cuda.synchronize(context.device)
    seconds = time.perf_counter() - start
    if isinstance(outcome, str) or versions(context.model) != before:
        context.renew_model()
    if isinstance(outcome, str):
        return Result(math.nan, None, outcome, seconds, definition)
    se = None if math.isnan(outcome.se) else outcome.se
    return Result(outcome.value, se, None, seconds, definition)


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by its formula: the fused kernels cannot be differentiated twice."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def versions(model: nn.Module) -> list[tuple[int, int, bool]]:
    """Changes when a tensor of the model is replaced or written to, or a module's mode is set.

    torch counts the in-place writes to every tensor, so this needs no copy and no comparison.
    """
    tensors = [*model.parameters(), *model.buffers()]
    modes = [(id(module), 0, module.training) for module in model.modules()]
    return [(id(t), t._version, t.requires_grad) for t in tensors] + modes
