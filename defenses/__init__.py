"""Training of robust models: data sets, architectures, attacks, methods, the loop, evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from defenses.methods import METHODS

__all__ = ["METHODS"]


def __getattr__(name: str) -> object:
    """``defenses.METHODS``, imported when it is first asked for: it brings PyTorch with it."""
    if name == "METHODS":
        from defenses.methods import METHODS

        return METHODS
    raise AttributeError(f"module 'defenses' has no attribute {name!r}")
