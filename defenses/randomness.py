"""Randomness by counter: every random draw has a name, so nothing needs a stored generator state.

A generator is seeded from what the numbers are for: ``generator(training_id, "batches", epoch)``.
The same call gives the same numbers in any process, in any order, after any interruption.
Trainings, evaluations and measures never use the global generators of torch and NumPy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch

BLOCK = 64  # images whose noise is drawn together by `block_streams`


def seed_of(identity: str | int, purpose: str, *counters: int) -> int:
    """63-bit seed of a named stream: SHA-256 of its name, the same on every machine."""
    name = "/".join((str(identity), purpose, *map(str, counters)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def generator(
    identity: str | int, purpose: str, *counters: int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A fresh generator on ``device`` for the stream named by the arguments.

    ``identity`` is a training's id or a seed, ``purpose`` says what is drawn, ``counters`` where
    (epoch, step, ...). Numbers differ between kinds of device, never between runs.
    """
    stream = torch.Generator(device=device)
    stream.manual_seed(seed_of(identity, purpose, *counters))
    return stream


def block_streams(
    identity: str | int, purpose: str, first: int, last: int, *, device: torch.device | str = "cpu"
) -> Iterator[tuple[torch.Generator, slice]]:
    """Streams for examples ``first`` to ``last - 1``, whose numbers depend on their index alone.

    Examples belong to blocks of ``BLOCK`` with a stream each. For every block in the range: its
    generator, from which the caller draws for all ``BLOCK`` examples, and the slice of those
    that are in the range. Batches of any size thus see the same numbers, at a fraction of the
    cost of one generator per example.
    """
    for block in range(first // BLOCK, -(-last // BLOCK)):
        start = block * BLOCK
        inside = slice(max(first - start, 0), min(last - start, BLOCK))
        yield generator(identity, purpose, block, device=device), inside
