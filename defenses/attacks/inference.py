"""Run a model without leaving a trace: the state an attack or a measurement must not change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside; afterwards everything is as it was.

    Each module gets its own training flag back (a frozen batch norm in a training model stays
    frozen) and each parameter its own ``requires_grad``. In eval mode batch norm's statistics do
    not move, and without parameter gradients ``.grad`` is not touched and the graph is smaller.
    """
    training = [module for module in model.modules() if module.training]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in trainable:
            parameter.requires_grad_(True)
