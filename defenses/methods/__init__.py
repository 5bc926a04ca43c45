"""Training methods by name. One file each; `docs/adding-a-defense.md` shows how to add one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from defenses.methods.at import AT
from defenses.methods.base import InnerAttack, LossTerms, Method
from defenses.methods.grad_align import GradAlign
from defenses.methods.mart import MART
from defenses.methods.standard import Standard
from defenses.methods.trades import TRADES
from defenses.spec import require, require_choice

__all__ = ["METHODS", "InnerAttack", "LossTerms", "Method", "make_method"]

METHODS: dict[str, type[Method]] = {
    "standard": Standard,
    "at": AT,
    "trades": TRADES,
    "mart": MART,
    "grad_align": GradAlign,
}


def make_method(name: str, parameters: Mapping[str, Any]) -> Method:
    """The method called ``name`` with the given hyperparameters, its own defaults elsewhere.

    ``ValueError`` with the valid choices for an unknown method or hyperparameter.
    """
    require_choice("method", name, tuple(METHODS))
    known = [field.name for field in fields(METHODS[name])]
    for parameter in parameters:
        require(
            parameter in known,
            f"method {name} has no hyperparameter {parameter!r}; it has: "
            f"{', '.join(known) or 'none'}",
        )
    return METHODS[name](**parameters)
