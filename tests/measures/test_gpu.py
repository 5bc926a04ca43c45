"""All measures on a GPU, with deterministic algorithms: python -m pytest -m gpu tests/measures"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import measures
from defenses.numerics import numerics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def test_every_measure_is_that_of_the_cpu(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    """Up to rounding, which some measures multiply; and no operation is refused."""
    images, labels = data
    initial = {name: 0.9 * value for name, value in model.state_dict().items()}
    found = {}
    for device in ("cpu", "cuda"):
        with numerics(device):
            found[device] = measures.measure(
                copy.deepcopy(model).to(device),
                images,
                labels,
                names=list(measures.MEASURES),
                initial_state={name: value.to(device) for name, value in initial.items()},
                train_size=24,
            )
    for name, expected in found["cpu"].items():
        result = found["cuda"][name]
        assert result.reason == expected.reason, name
        assert result.value == pytest.approx(expected.value, rel=0.05, abs=1e-4, nan_ok=True), name
