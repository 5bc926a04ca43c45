"""Named streams: reproducible, distinct, and independent of batches."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from defenses.randomness import BLOCK, block_streams, generator, seed_of


def test_a_name_gives_the_same_numbers_and_another_name_others() -> None:
    assert torch.equal(
        torch.rand(4, generator=generator("a", "b", 1)),
        torch.rand(4, generator=generator("a", "b", 1)),
    )
    names = [("a", "b", 1), ("a", "b", 2), ("a", "c", 1), ("b", "b", 1), ("a", "b", 1, 0)]
    assert len({seed_of(*name) for name in names}) == len(names)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert seed_of("training", "batches", 3) == 3102958768393276055


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = torch.rand(2, generator=generator(1, "x"))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(first, torch.rand(2, generator=generator(1, "x")))


@given(st.lists(st.integers(1, 3 * BLOCK), min_size=1, max_size=5))
def test_block_streams_do_not_depend_on_the_batches(sizes: list[int]) -> None:
    def numbers(first: int, last: int) -> torch.Tensor:
        return torch.cat(
            [
                torch.rand(BLOCK, generator=stream)[inside]
                for stream, inside in block_streams(7, "noise", first, last)
            ]
        )

    total = sum(sizes)
    parts, first = [], 0
    for size in sizes:
        parts.append(numbers(first, first + size))
        first += size
    assert torch.equal(torch.cat(parts), numbers(0, total))
    assert len(torch.cat(parts)) == total
