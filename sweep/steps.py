"""The steps after training: evaluation and measures of one model, each with its definition.

A value is valid as long as its definition (a hash of name, version and parameters) is the one
wanted; everything else of a finished model is computed again, and nothing more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import measures
from defenses import evaluation as accuracy
from defenses.datasets import Data, to_float
from defenses.spec import Threat
from sweep.setting import Evaluation, Measuring, digest

Values = dict[str, dict[str, Any]]  # name -> {"value": ..., "definition": ...}
ACCURACY = (
    "clean_train",
    "clean_test",
    "fgsm_test",
    "pgd_train",
    "pgd_test",
    "gap",
    "clean_gap",
)


def metric_definitions(evaluation: Evaluation, threat: Threat) -> dict[str, str]:
    """The definition that each wanted metric must have."""
    common = [threat.norm, threat.eps, evaluation.seed]
    pgd = digest(["accuracy", accuracy.DEFINITION, threat.step_size, evaluation.steps, *common])
    wanted = dict.fromkeys(ACCURACY, pgd[:16])
    if evaluation.autoattack:
        definition = digest(["autoattack", accuracy.DEFINITION, *common])[:16]
        wanted |= dict.fromkeys(("aa_train", "aa_test", "aa_gap"), definition)
    if evaluation.masking:
        definition = digest(["masking", accuracy.DEFINITION, threat.step_size, *common])[:16]
        wanted["masking"] = definition
    return wanted


def columns(names: Iterable[str]) -> dict[str, str]:
    """Column -> name, for measures as they are asked for (a file's is ``mine.py:my_measure``)."""
    return {column: name for name in names for column in measures.resolve([name])}


def measure_definitions(measuring: Measuring, threat: Threat, train_size: int) -> dict[str, str]:
    """The definition that each wanted measure must have, with ``train_size`` training images."""
    return {
        column: measures.definition(
            name,
            measuring.parameters.get(column),
            threat=threat,
            num_images=min(measuring.images or train_size, train_size),
            train_size=train_size,
            seed=measuring.seed,
        )
        for column, name in columns(measuring.names).items()
    }


def outdated(stored: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, str]) -> list[str]:
    """Names whose value is absent or was computed by another definition."""
    return [n for n, d in wanted.items() if (stored.get(n) or {}).get("definition") != d]


def evaluate(
    model: nn.Module, data: Data, threat: Threat, evaluation: Evaluation, names: list[str]
) -> tuple[Values, dict[str, NDArray[np.bool_]]]:
    """The named metrics of a model, with per-example correctness."""
    result = accuracy.evaluate(
        model,
        data,
        threat,
        steps=evaluation.steps,
        batch_size=evaluation.batch_size,
        seed=evaluation.seed,
    )
    definition = metric_definitions(evaluation, threat)["gap"]
    values = {n: {"value": result.metrics[n], "definition": definition} for n in ACCURACY}
    return values, result.correct


def measure(
    model: nn.Module,
    data: Data,
    wanted: list[str],
    *,
    threat: Threat,
    measuring: Measuring,
    initial_state: dict[str, torch.Tensor] | None,
) -> tuple[Values, dict[str, float]]:
    """The wanted columns of a model on its training images: (values, seconds of each)."""
    reference = columns(measuring.names)
    split = data.train
    count = len(split.labels) if measuring.images is None else measuring.images
    index = subset(len(split.labels), count, measuring.seed)
    started = time.perf_counter()
    results = measures.measure(
        model,
        to_float(split.images[index]),
        split.labels[index],
        names=[reference[column] for column in wanted],
        threat=threat,
        initial_state=initial_state,
        train_size=len(split.labels),
        parameters={n: p for n, p in measuring.parameters.items() if n in wanted},
        batch_size=measuring.batch_size,
        seed=measuring.seed,
    )
    values: Values = {}
    seconds: dict[str, float] = {}
    for name, result in results.items():
        values[name] = {
            "value": _finite(result.value),
            "se": _finite(result.se),
            "reason": result.reason,
            "definition": result.definition,
        }
        seconds[name] = round(result.seconds, 4)
    seconds["all"] = round(time.perf_counter() - started, 4)
    return values, seconds


def subset(available: int, count: int, seed: int) -> torch.Tensor:
    """Indices of the fixed measuring subset: the same for every model of a data set, sorted."""
    if count >= available:
        return torch.arange(available)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(available, generator=generator)[:count].sort().values


def _finite(value: float | None) -> float | None:
    """JSON has no NaN or infinity: an undefined value is null, and its reason says why."""
    return value if value is not None and math.isfinite(value) else None
