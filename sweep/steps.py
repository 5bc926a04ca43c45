"""The steps after training: evaluation and measures of one model, each with its definition.

A value is valid as long as its definition (a hash of name, version and parameters) is the one
wanted (``definitions``); everything else of a finished model is computed, and nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import measures
from defenses import evaluation as accuracy
from defenses import masking
from defenses.attacks import autoattack
from defenses.datasets import Data, Split, to_float
from defenses.spec import Threat
from sweep.digest import digest
from sweep.setting import Evaluation, Measuring

Correct = dict[str, NDArray[np.bool_]]  # name of an accuracy -> which examples are right
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
AUTOATTACK = ("aa_train", "aa_test", "aa_gap")


def metric_definitions(evaluation: Evaluation, threat: Threat) -> dict[str, str]:
    """The definition that each wanted metric must have."""
    common = [threat.norm, threat.eps, evaluation.seed]
    pgd = digest(["accuracy", accuracy.DEFINITION, threat.step_size, evaluation.steps, *common])
    wanted = dict.fromkeys(ACCURACY, pgd[:16])
    definition: list[Any]
    if evaluation.autoattack:
        definition = [autoattack.DEFINITION, evaluation.autoattack_images, *common]
        wanted |= dict.fromkeys(AUTOATTACK, digest(["autoattack", *definition])[:16])
    if evaluation.masking_images:
        definition = [masking.DEFINITION, evaluation.masking_images, threat.step_size, *common]
        wanted["masking"] = digest(["masking", wanted["gap"], *definition])[:16]
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


def evaluate(
    model: nn.Module,
    data: Data,
    threat: Threat,
    evaluation: Evaluation,
    names: Sequence[str],
    known: Correct,
) -> tuple[Values, Correct]:
    """The named metrics of a model, and per-example correctness: ``known`` and what is new."""
    definitions = metric_definitions(evaluation, threat)
    metrics: dict[str, float | bool] = {}
    correct = dict(known)
    if any(name in ACCURACY for name in names):
        result = accuracy.evaluate(
            model,
            data,
            threat,
            steps=evaluation.steps,
            batch_size=evaluation.batch_size,
            seed=evaluation.seed,
        )
        metrics |= {name: result.metrics[name] for name in ACCURACY}
        correct |= result.correct
    if any(name in AUTOATTACK for name in names):
        for part, split in (("train", data.train), ("test", data.test)):
            survivors = _autoattacked(
                model, split[: evaluation.autoattack_images], threat, evaluation
            )
            correct[f"aa_{part}"] = survivors
            metrics[f"aa_{part}"] = int(survivors.sum()) / len(survivors)
        metrics["aa_gap"] = round(metrics["aa_train"] - metrics["aa_test"], 9)
    values: Values = {
        name: {"value": value, "definition": definitions[name]} for name, value in metrics.items()
    }
    if "masking" in names:
        first = data.test[: evaluation.masking_images]
        report = masking.check(
            model,
            to_float(first.images),
            first.labels,
            threat=threat,
            correct_pgd=torch.from_numpy(correct["pgd_test"][: len(first)]).to(first.labels.device),
            steps=evaluation.steps,
            seed=evaluation.seed,
            batch_size=evaluation.batch_size,
        )
        values["masking"] = {
            "value": report.masking,
            "reason": report.reason,
            "definition": definitions["masking"],
        }
    return values, correct


def _autoattacked(
    model: nn.Module, split: Split, threat: Threat, evaluation: Evaluation
) -> NDArray[np.bool_]:
    """Which images withstand AutoAttack."""
    survivors = autoattack.robust(
        model,
        to_float(split.images),
        split.labels,
        threat=threat,
        seed=evaluation.seed,
        batch_size=evaluation.batch_size,
    )
    result: NDArray[np.bool_] = survivors.cpu().numpy()
    return result


def measure(
    model: nn.Module,
    data: Data,
    wanted: list[str],
    *,
    threat: Threat,
    measuring: Measuring,
    initial_state: dict[str, torch.Tensor] | None,
    on_value: Callable[[str, dict[str, Any], float], None],
) -> None:
    """Compute the wanted columns of a model on its training images.

    ``on_value`` gets each column, its value as a row has it, and its seconds, when it is there.
    """
    reference = columns(measuring.names)
    split = data.train
    count = len(split.labels) if measuring.images is None else measuring.images
    index = subset(len(split.labels), count)

    def on_result(name: str, result: measures.Result) -> None:
        value = {
            "value": _finite(result.value),
            "se": _finite(result.se),
            "reason": result.reason,
            "definition": result.definition,
        }
        on_value(name, value, round(result.seconds, 4))

    measures.measure(
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
        on_result=on_result,
    )


def subset(available: int, count: int) -> torch.Tensor:
    """Indices of the fixed measuring subset: the same for every model and seed, sorted."""
    if count >= available:
        return torch.arange(available)
    generator = torch.Generator().manual_seed(0)
    return torch.randperm(available, generator=generator)[:count].sort().values


def _finite(value: float | None) -> float | None:
    """JSON has no NaN or infinity: an undefined value is null, and its reason says why."""
    return value if value is not None and math.isfinite(value) else None
