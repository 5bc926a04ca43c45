"""The context as one measure may see it: with what it declared, and no more.

A value's definition is made of what its measure declares. If a measure could use more, values for
different threats, say, would share a definition and pass for comparable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from measures.engine.context import Context, On, Pass
from measures.engine.measure import Measure, Need

T = TypeVar("T")

# Attribute of the context -> what must be declared for it: the first, or any other one by which the
# definition holds it as well. What is not listed, the definition does not depend on.
NEEDED: dict[str, tuple[Need, ...]] = {
    "images": ("clean", "adversarial"),
    "labels": ("clean", "adversarial"),
    "clean": ("clean", "adversarial"),
    "adversarial": ("adversarial",),
    "threat": ("threat", "adversarial"),
    "attack": ("threat", "adversarial"),
    "train_size": ("train_size",),
}
RANDOM = {"attack", "generator", "seed"}  # whose values depend on the seed


class Undeclared(Exception):
    """A measure used what it does not declare. The message says what to write, and where."""


class Declared:
    """Stands in for ``context`` while ``measure`` runs, and raises ``Undeclared``.

    Only what the measure itself asks for counts: what the context uses to answer (the threat, for
    the shared adversarial examples) goes past this. ``name`` is the measure's.
    """

    def __init__(self, context: Context, name: str, measure: Measure) -> None:
        self._context = context
        self._name = name
        self._measure = measure
        self._used: set[str] = set()

    def __getattr__(self, attribute: str) -> Any:
        self._check(attribute)
        return getattr(self._context, attribute)

    def on(self, which: On) -> Pass:
        chosen: Pass = getattr(self, which)
        return chosen

    def once(self, key: tuple[object, ...], compute: Callable[[], T]) -> T:
        """As ``Context.once``. A kept result counts as what it was computed from, for every
        measure that takes it: which of them ran first makes no difference."""

        def recorded() -> tuple[T, set[str]]:
            before, self._used = self._used, set()
            try:
                return compute(), self._used
            finally:
                self._used = before | self._used

        value, used = self._context.once(("declared", *key), recorded)
        for attribute in sorted(used):
            self._check(attribute)
        return value

    def _check(self, attribute: str) -> None:
        self._used.add(attribute)
        measure, needs = self._measure, NEEDED.get(attribute, ())
        if needs and not measure.needs & set(needs):
            self._refuse(attribute, f'add "{needs[0]}" to needs')
        if attribute in RANDOM and not measure.depends_on_seed:
            self._refuse(attribute, "add stochastic=True")

    def _refuse(self, attribute: str, change: str) -> None:
        if self._measure.source_digest is None:
            line = f'the line "{self._name}": entry(...) of measures/registry.py'
        else:
            line = f"the line {self._name} = Measure(...) of your file"
        raise Undeclared(
            f"{self._name} uses context.{attribute} but does not declare it: in {line}, {change}"
        )
