"""The flags of a GPU's arithmetic are explicit inside and as before afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from defenses.numerics import numerics


def flags() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    matmul = torch.backends.cuda.matmul
    return (
        matmul.fp32_precision,
        matmul.allow_tf32,  # raises where the older and the newer flag contradict each other
        torch.get_float32_matmul_precision(),
        cudnn.conv.fp32_precision,
        cudnn.allow_tf32,  # so does this one
        cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.mark.parametrize("deterministic", [True, False])
def test_flags_are_set_and_put_back(deterministic: bool) -> None:
    before = flags()
    expected = ("tf32", True, "high", "tf32", True, not deterministic, deterministic)
    with numerics("cuda", tf32=True, deterministic=deterministic):
        assert flags() == expected
        with numerics("cuda"):
            assert flags() == ("ieee", False, "highest", "ieee", False, False, True)
        assert flags() == expected
    assert flags() == before


def test_a_cpu_has_nothing_to_set() -> None:
    before = flags()
    with numerics("cpu", tf32=True, deterministic=False):
        assert flags() == before
