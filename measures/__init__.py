"""Robustness measures: properties of a trained model, to be held against its robust gap.

    import measures
    measures.compute(model, images, labels, names=["x_grad_norm", "path_norm"])

works on any ``nn.Module`` that takes images in [0, 1] and returns logits, on CPU or GPU.
``MEASURES`` lists what there is; ``docs/measures.md`` is generated from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from defenses.spec import Threat, require
from measures.engine.context import Context, On
from measures.engine.identity import definition_of, merged_parameters
from measures.engine.measure import Estimate, Measure, Result, Undefined
from measures.engine.resolve import resolve_names
from measures.engine.run import check_input, check_output, run_measure
from measures.registry import MEASURES, SETS

__all__ = [
    "MEASURES",
    "SETS",
    "Context",
    "Estimate",
    "Measure",
    "Result",
    "Undefined",
    "compute",
    "definition",
    "measure",
    "resolve",
]

Parameters = Mapping[str, Mapping[str, Any]]


def resolve(names: Iterable[str], folder: Path | None = None) -> dict[str, Measure]:
    """Column name -> measure, for names, set names and ``./mine.py:my_measure``.

    Relative paths start at ``folder`` (default: the current one). ``ValueError`` with what is
    valid for anything else.
    """
    return resolve_names(names, MEASURES, SETS, folder or Path.cwd())


def definition(
    name: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    threat: Threat | None = None,
    num_images: int | None = None,
    train_size: int | None = None,
    seed: int = 0,
    folder: Path | None = None,
) -> str:
    """The ``Result.definition`` that ``measure`` would give, without running anything.

    ``name`` is a measure or ``./mine.py:my_measure``; ``parameters`` are those of this measure
    that differ from the defaults; the rest as for ``measure`` (``num_images`` = ``len(images)``).
    """
    ((column, chosen),) = resolve([name], folder).items()
    return definition_of(
        column,
        chosen,
        parameters or {},
        threat=threat or Threat(),
        num_images=num_images,
        train_size=train_size,
        seed=seed,
    )


def measure(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    names: Iterable[str] | None = None,
    threat: Threat | None = None,
    initial_state: dict[str, Tensor] | None = None,
    train_size: int | None = None,
    parameters: Parameters | None = None,
    batch_size: int = 256,
    seed: int = 0,
    folder: Path | None = None,
) -> dict[str, Result]:
    """Column name -> result, for one model. The model itself is left exactly as it was.

    ``images`` ``(N, C, H, W)`` in [0, 1] and ``labels`` ``(N,)`` are un-augmented training
    examples; they and the model may be on different devices (the model's is used). ``names``:
    measures, sets or files as for ``resolve``; None: the set "default". ``threat``: None: linf
    with eps 8/255. ``initial_state``: the state dict before training. ``train_size``: number of
    training images. ``parameters``: measure name -> its parameters that differ from the defaults.
    ``batch_size`` changes speed and memory, no value. ``seed`` names all random draws.

    ``ValueError`` for input that cannot be measured. What is undefined for this model, or raises,
    is NaN with a reason, and affects no other measure.
    """
    chosen = resolve(["default"] if names is None else names, folder)
    given = parameters or {}
    unknown = sorted(set(given) - set(chosen))
    require(not unknown, f"parameters are given for measures not chosen: {', '.join(unknown)}")
    require(batch_size >= 1, f"batch_size={batch_size} must be at least 1")
    check_input(model, images, labels)
    context = Context(
        model,
        *on_device_of(model, images, labels),
        threat=threat or Threat(),
        initial_state=initial_state,
        train_size=train_size,
        batch_size=batch_size,
        seed=seed,
        gradients_wanted=gradients_wanted(chosen.values()),
    )
    check_output(context)
    plan = {
        name: (
            merged_parameters(name, chosen[name], given.get(name, {})),
            definition_of(
                name,
                chosen[name],
                given.get(name, {}),
                threat=context.threat,
                num_images=len(images),
                train_size=train_size,
                seed=seed,
            ),
        )
        for name in chosen
    }
    return {
        name: run_measure(chosen[name], context, values, identity)
        for name, (values, identity) in plan.items()
    }


def compute(model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> dict[str, float]:
    """The values of ``measure`` alone; NaN where a measure is undefined for this model."""
    return {name: r.value for name, r in measure(model, images, labels, **options).items()}


def gradients_wanted(chosen: Iterable[Measure]) -> frozenset[On]:
    """On which images some of the measures want gradients."""
    wanting = [m.needs for m in chosen if "gradients" in m.needs]
    return frozenset(which for which in get_args(On) if any(which in needs for needs in wanting))


def on_device_of(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images (float32) and labels where the model's weights are."""
    device = next((t.device for t in model.parameters()), images.device)
    return images.detach().to(device).float(), labels.to(device)
