"""How an epoch is judged, and so which checkpoint is the best: never on what it was trained on."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from defenses.datasets import Data, Split
from defenses.datasets.data import shuffled
from defenses.evaluation import clean_outcome, pgd_outcome
from defenses.spec import Selection, TrainingSpec, require

BATCH = 512


class Scores(NamedTuple):
    """Accuracies in [0, 1]; ``pgd`` is None for a method that does not aim at robustness."""

    clean: float
    pgd: float | None

    @property
    def selected(self) -> float:
        """What the best epoch has most of: PGD accuracy, or clean accuracy where that is None.

        The PGD accuracy of standard training is noise around 0; an untrained net would win.
        """
        return self.clean if self.pgd is None else self.pgd


def selection_split(selection: Selection, data: Data) -> Split:
    """The images to judge on; ``ValueError`` if there are fewer than ``selection.size``."""
    split = data.test if selection.split == "test" else data.selection
    if selection.size is None:
        return split
    require(
        selection.size <= len(split),
        f"training.selection.size={selection.size}, but {data.name} has {len(split)} such images",
    )
    return split[shuffled(len(split))[: selection.size].to(split.labels.device)]


def judge(model: nn.Module, split: Split, spec: TrainingSpec, *, robust: bool) -> Scores:
    """Clean accuracy, and if ``robust`` that under PGD from the same starts in every epoch."""
    clean = clean_outcome(model, split, batch_size=BATCH).accuracy
    if not robust:
        return Scores(clean, None)
    attacked = pgd_outcome(
        model,
        split,
        spec.threat,
        steps=spec.recipe.selection.steps,
        batch_size=BATCH,
        seed=0,
        purpose="selection",
    )
    return Scores(clean, attacked.accuracy)
