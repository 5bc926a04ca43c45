"""Run a model without leaving a trace: the state an attack or a measurement must not change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

Mode = Literal["eval", "train"]


@contextmanager
def frozen(model: nn.Module, mode: Mode = "eval") -> Iterator[None]:
    """Eval mode and no parameter gradients inside; afterwards everything is as it was.

    Each module gets its own training flag back (a frozen batch norm in a training model stays
    frozen) and each parameter its own ``requires_grad``. Without parameter gradients ``.grad`` is
    not touched and the graph is smaller. With mode "train" batch norm uses the statistics of the
    batch; the running ones, which that moves, are put back.
    """
    flags = [(module, module.training) for module in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()] if mode == "train" else []
    model.train(mode == "train")
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training
        for parameter in trainable:
            parameter.requires_grad_(True)
        with torch.no_grad():
            for buffer, original in buffers:
                buffer.copy_(original)
