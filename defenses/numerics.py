"""The numerical flags of PyTorch, set explicitly for a while and then put back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def numerics(
    device: torch.device | str, *, tf32: bool = False, deterministic: bool = True
) -> Iterator[None]:
    """Inside, matrix products and convolutions on a GPU obey ``tf32`` and ``deterministic``.

    PyTorch's own defaults would let convolutions use TF32 (10 bits of mantissa) and pick
    algorithms whose sums change from run to run. On a CPU there is nothing to set: its results
    are the same for the same number of threads.
    """
    if torch.device(device).type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    matmul = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn  # its parts and the memory flag are unknown to type checkers
    conv, rnn = cudnn.conv, cudnn.rnn
    memory: Any = torch.utils.deterministic
    before = (
        torch.get_float32_matmul_precision(),
        matmul.fp32_precision,
        conv.fp32_precision,
        rnn.fp32_precision,
        cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        memory.fill_uninitialized_memory,
    )
    # the older flags: they set the newer ones too, and other code still reads the older ones, which
    # raise an error where the two contradict each other
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    cudnn.allow_tf32 = tf32
    conv.fp32_precision = "tf32" if tf32 else "ieee"
    cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic)
    memory.fill_uninitialized_memory = False  # a debugging aid that would cost time
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[2] == "tf32"
        matmul.fp32_precision, conv.fp32_precision, rnn.fp32_precision = before[1:4]
        cudnn.benchmark = before[4]
        torch.use_deterministic_algorithms(before[5])
        memory.fill_uninitialized_memory = before[6]
