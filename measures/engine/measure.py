"""What a measure is, and what it returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

Family = Literal["weight norm", "margin", "smoothness", "flatness", "gradient", "control"]
Need = Literal[
    "weights",  # the model's weights as they are
    "folded",  # the weights with batch-norm folded, from the traced graph
    "initial",  # the weights before training
    "clean",  # the given images
    "adversarial",  # the shared PGD examples of the given images
    "gradients",  # gradients at whichever of the two it measures on
    "threat",  # norm, eps and step size, beyond the shared PGD examples
    "train_size",  # how many images the model was trained on
]


class Undefined(Exception):
    """The measure has no value for this model. The message is the reason shown in the row."""


@dataclass(frozen=True)
class Estimate:
    """A value with its Monte-Carlo standard error, given the model and the images."""

    value: float
    se: float


@dataclass(frozen=True)
class Result:
    """One measure of one model.

    ``value`` is NaN exactly when ``reason`` says why. ``se`` is the Monte-Carlo standard error
    given the images, where the measure draws repeatedly, else None. ``seconds`` includes shared
    work (adversarial examples, folding) for the first measure that asked for it.
    ``definition`` identifies what was computed; equal definitions are comparable.
    """

    value: float
    se: float | None
    reason: str | None
    seconds: float
    definition: str


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One row of the registry.

    ``function(context, **parameters)`` returns a float or an ``Estimate`` or raises
    ``Undefined``; its keyword-only arguments are the parameters a user can set. ``variant``
    fixes some of them: what makes this entry differ from its siblings in the same file.
    ``expected_sign`` is that of Kendall's tau with the gap which the measure's authors expect;
    None: nothing is expected. ``sign_inferred``: its authors do not say it, or not of the gap (but
    of robustness, say); it is this project's reading. ``version`` is raised when a correction
    changes values.
    """

    function: Callable[..., float | Estimate]
    family: Family
    needs: frozenset[Need]
    expected_sign: Literal[1, -1] | None
    sign_inferred: bool = False
    stochastic: bool = False
    version: int = 1
    variant: Mapping[str, Any] = field(default_factory=dict)
    source_digest: str | None = None  # of the file, for measures from outside the repository

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Name -> default of each parameter that a user can set."""
        signature = inspect.signature(self.function).parameters.values()
        return {
            p.name: p.default
            for p in signature
            if p.kind is inspect.Parameter.KEYWORD_ONLY and p.name not in self.variant
        }

    @property
    def depends_on_seed(self) -> bool:
        """Whether another ``seed`` gives another value (the PGD examples start at random)."""
        return self.stochastic or "adversarial" in self.needs

    @property
    def summary(self) -> str:
        """First line of the docstring: what it is."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def source(self) -> str:
        """Second line of the docstring: paper and equation."""
        return (inspect.getdoc(self.function) or "").partition("\n")[2].partition("\n")[0]
