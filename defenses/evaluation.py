"""How accurate and how robust a model is: clean, FGSM and PGD, example by example.

Always in fp32 and eval mode. Example i starts its attack at a point that depends on the seed, on
what is evaluated and on i alone, so that batch size and order do not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from defenses.attacks import fgsm, pgd
from defenses.attacks.inference import frozen
from defenses.attacks.threat import geometry
from defenses.datasets import Data, Split, to_float
from defenses.randomness import BLOCK, block_streams
from defenses.spec import Threat

DEFINITION = 1  # of all metrics below; raised when a correction changes their values


@dataclass(frozen=True)
class Evaluation:
    """``metrics``: accuracies and the gaps in [0, 1], named as in a row.

    ``correct``: whether each example is classified correctly, by the name of its accuracy. FGSM
    is one step of size eps from the image itself, PGD that of the threat from a random start.
    "train" is the whole base training set without augmentation.
    """

    metrics: dict[str, float]
    correct: dict[str, NDArray[np.bool_]]


def evaluate(
    model: nn.Module,
    data: Data,
    threat: Threat,
    *,
    steps: int = 10,
    batch_size: int = 512,
    seed: int = 0,
) -> Evaluation:
    """Clean and PGD accuracy on train and test, FGSM on test, per example; and the two gaps.

    ``gap`` is PGD accuracy on train minus on test, ``clean_gap`` likewise: differences of counts
    over sizes, rounded to 1e-9, so that equal gaps are equal numbers.
    """
    metrics: dict[str, float] = {}
    correct: dict[str, NDArray[np.bool_]] = {}

    def record(name: str, outcome: Outcome) -> None:
        correct[name] = outcome.correct.cpu().numpy()
        metrics[name] = outcome.accuracy

    for part, split in (("train", data.train), ("test", data.test)):
        record(f"clean_{part}", clean_outcome(model, split, batch_size=batch_size))
        attacked = pgd_outcome(
            model,
            split,
            threat,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            purpose=f"evaluation/{part}",
        )
        record(f"pgd_{part}", attacked)
    record("fgsm_test", fgsm_outcome(model, data.test, threat, batch_size=batch_size))
    metrics["gap"] = round(metrics["pgd_train"] - metrics["pgd_test"], 9)
    metrics["clean_gap"] = round(metrics["clean_train"] - metrics["clean_test"], 9)
    return Evaluation(metrics, correct)


@dataclass(frozen=True)
class Outcome:
    """``correct`` ``(N,)`` bool: which examples are classified correctly."""

    correct: Tensor

    @property
    def accuracy(self) -> float:
        return int(self.correct.sum()) / len(self.correct)


def clean_outcome(model: nn.Module, split: Split, *, batch_size: int) -> Outcome:
    """The model on the images as they are."""
    return _outcome(model, split, batch_size, lambda x, y, first: x)


def fgsm_outcome(model: nn.Module, split: Split, threat: Threat, *, batch_size: int) -> Outcome:
    """The model after one step of size eps."""

    def attack(x: Tensor, y: Tensor, first: int) -> Tensor:
        return fgsm(model, x, y, eps=threat.eps, norm=threat.norm)

    return _outcome(model, split, batch_size, attack)


def pgd_outcome(
    model: nn.Module,
    split: Split,
    threat: Threat,
    *,
    steps: int,
    batch_size: int,
    seed: int | str,
    purpose: str,
) -> Outcome:
    """The model after ``steps`` steps of PGD on the cross-entropy, last iterate."""

    def attack(x: Tensor, y: Tensor, first: int) -> Tensor:
        return pgd(
            model,
            x,
            y,
            eps=threat.eps,
            step_size=threat.step_size,
            steps=steps,
            norm=threat.norm,
            start=random_starts(x, threat, seed, purpose, first),
        )

    return _outcome(model, split, batch_size, attack)


def random_starts(x: Tensor, threat: Threat, seed: int | str, purpose: str, first: int) -> Tensor:
    """Random points around ``x``, which are the examples from number ``first`` on."""
    starts = torch.empty_like(x)
    ball = geometry(threat.norm)
    done = 0
    for stream, inside in block_streams(seed, purpose, first, first + len(x), device=x.device):
        block = x.new_zeros((BLOCK, *x.shape[1:]))
        count = inside.stop - inside.start
        block[inside] = x[done : done + count]
        starts[done : done + count] = ball.random_start(block, threat.eps, stream)[inside]
        done += count
    return starts


def _outcome(
    model: nn.Module, split: Split, batch_size: int, attack: Callable[[Tensor, Tensor, int], Tensor]
) -> Outcome:
    """Run ``attack(x, y, index of the first example)`` over the split and classify the result."""
    correct = []
    with frozen(model):
        for first in range(0, len(split), batch_size):
            batch = split[first : first + batch_size]
            x_adv = attack(to_float(batch.images), batch.labels, first)
            with torch.no_grad():
                correct.append(model(x_adv).argmax(dim=1) == batch.labels)
    return Outcome(torch.cat(correct))
