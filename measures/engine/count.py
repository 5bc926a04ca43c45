"""How many images go forward and backward through a model."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass
class PassCounter:
    """Counts images in forward and backward passes of every model given to ``watch``.

    A Hessian-vector product goes back through the forward and the backward pass and counts as two
    backward passes.
    """

    forward: int = 0
    backward: int = 0

    def watch(self, model: nn.Module) -> None:
        model.register_forward_hook(self._after_forward)

    def _after_forward(self, model: nn.Module, inputs: object, logits: Tensor) -> None:
        self.forward += len(logits)
        if not logits.requires_grad:
            return
        twice = False

        def on_backward(gradient: Tensor) -> None:
            nonlocal twice
            self.backward += 2 * len(gradient) if twice else len(gradient)
            # A backward pass that records itself is there to be differentiated again.
            twice = twice or torch.is_grad_enabled()

        logits.register_hook(on_backward)


@dataclass(frozen=True)
class CostRow:
    """What one measure, or the work that several share, takes: images forward and backward."""

    name: str
    forward: int
    backward: int
    seconds: float


@dataclass(frozen=True)
class Costs:
    """Rows in the order they ran; ``str`` of it is a table with the total."""

    rows: list[CostRow] = field(default_factory=list)

    @property
    def forward(self) -> int:
        return sum(row.forward for row in self.rows)

    @property
    def backward(self) -> int:
        return sum(row.backward for row in self.rows)

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.rows)

    def __str__(self) -> str:
        total = CostRow("total", self.forward, self.backward, self.seconds)
        lines = [f"{'':32}{'forward':>12}{'backward':>12}{'seconds':>10}"]
        lines += [
            f"{row.name:32}{row.forward:12,}{row.backward:12,}{row.seconds:10.2f}"
            for row in [*self.rows, total]
        ]
        return "\n".join(lines)
