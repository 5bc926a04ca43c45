"""The ways a training ends without a model. Each becomes the status of its rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from defenses.spec import TrainingSpec


class Interrupted(Exception):
    """Asked to stop; the state is saved and the training can go on."""


class Diverged(Exception):
    """Loss or weights are no longer finite; ``epoch`` counts from 1."""

    def __init__(self, epoch: int, reason: str) -> None:
        super().__init__(f"epoch {epoch}: {reason}")
        self.epoch = epoch
        self.reason = reason


class OutOfMemory(Exception):
    """The device's memory does not suffice; ``reason`` says how much was asked for."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@contextmanager
def memory_errors(spec: TrainingSpec) -> Iterator[None]:
    """Turn the allocators' errors, and only those, into ``OutOfMemory``."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU raises a plain one
        message = str(error)
        asked = re.search(r"[Tt]ried to allocate ([\d.]+ ?\w+)", message)
        if isinstance(error, torch.OutOfMemoryError) or (asked and "alloc" in message):
            size = asked[1] if asked else "an unknown size"
            raise OutOfMemory(
                f"{spec.architecture} at batch_size={spec.batch_size} needed {size} more: "
                f"{message.splitlines()[0]}"
            ) from error
        raise
