"""Robustness measures: properties of a trained model, to be held against its robust gap.

    import measures
    measures.compute(model, images, labels, names=["x_grad_norm", "path_norm"])

works on any ``nn.Module`` that takes images in [0, 1] and returns logits, on CPU or GPU.
``MEASURES`` lists what there is; ``docs/measures.md`` is generated from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from defenses.spec import Threat
from measures.engine.context import Context
from measures.engine.count import CostRow, Costs, PassCounter
from measures.engine.identity import definition_of, merged_parameters
from measures.engine.measure import Estimate, Measure, Result, Undefined
from measures.engine.resolve import reference, resolve_names, split_reference
from measures.engine.run import Job, Parameters, job_on
from measures.registry import MEASURES
from measures.sets import NOISY, SETS

__all__ = [
    "MEASURES",
    "NOISY",
    "SETS",
    "Context",
    "Estimate",
    "Measure",
    "Result",
    "Undefined",
    "compute",
    "cost",
    "definition",
    "measure",
    "merged_parameters",
    "reference",
    "resolve",
    "split_reference",
]


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
    on_result: Callable[[str, Result], None] = lambda name, result: None,
) -> dict[str, Result]:
    """Column name -> result, for one model. The model itself is left exactly as it was.

    ``images`` ``(N, C, H, W)`` in [0, 1] and ``labels`` ``(N,)`` are un-augmented training
    examples; they and the model may be on different devices (the model's is used). ``names``:
    measures, sets or files as for ``resolve``; None: the set "default". ``threat``: None: linf
    with eps 8/255. ``initial_state``: the state dict before training. ``train_size``: number of
    training images. ``parameters``: measure name -> its parameters that differ from the defaults.
    ``batch_size`` changes speed and memory, no value. ``seed`` names all random draws.
    ``on_result`` is told each result as soon as it is there.

    ``ValueError`` for input that cannot be measured. What is undefined for this model, or raises,
    is NaN with a reason, and affects no other measure.
    """
    job = prepare(
        model,
        images,
        labels,
        names=names,
        threat=threat,
        initial_state=initial_state,
        train_size=train_size,
        parameters=parameters,
        batch_size=batch_size,
        seed=seed,
        folder=folder,
    )
    results = {}
    for name in job.chosen:
        results[name] = job.run(name)
        on_result(name, results[name])
    return results


def compute(model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> dict[str, float]:
    """The values of ``measure`` alone; NaN where a measure is undefined for this model."""
    return {name: r.value for name, r in measure(model, images, labels, **options).items()}


def cost(model: nn.Module, images: Tensor, labels: Tensor, **options: Any) -> Costs:
    """Images forward and backward, and seconds, of each measure; ``print`` it for a table.

    Takes what ``measure`` takes, and runs it. What several measures share has a row of its own.
    """
    counter = PassCounter()
    job = prepare(model, images, labels, watch=counter.watch, **options)
    rows = []

    def add(name: str, work: Callable[[], object]) -> None:
        forward, backward, start = counter.forward, counter.backward, time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        passes = (counter.forward - forward, counter.backward - backward)
        rows.append(CostRow(name, *passes, seconds))

    add("(shared: examples, logits)", job.prepare_shared)
    for name in job.chosen:
        add(name, partial(job.run, name))
    return Costs(rows)


def prepare(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    names: Iterable[str] | None = None,
    folder: Path | None = None,
    threat: Threat | None = None,
    **options: Any,
) -> Job:
    chosen = resolve(["default"] if names is None else names, folder)
    return job_on(model, images, labels, chosen, threat=threat or Threat(), **options)
