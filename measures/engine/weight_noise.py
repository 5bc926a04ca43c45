"""Evaluating a model at other weights than its own, without touching it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from measures.engine.context import Context

Loss = Callable[[Tensor, Tensor], Tensor]  # (logits, labels) -> loss of each example


class At(nn.Module):
    """``model`` as it would be with ``weights`` (name -> tensor) in place of its own."""

    def __init__(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.model = model
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.model, self.weights, (x,))
        return logits


class FlatWeights:
    """Some of a model's parameters as one vector w: noise on all of them is one operation.

    ``layers`` are the parameters' names, in the order in which they make up the vector.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self.model = model
        parameters = dict(model.named_parameters())
        chosen = {name: parameters[name].detach() for name in names}
        self.names = list(chosen)
        self.shapes = [p.shape for p in chosen.values()]
        self.sizes = [p.numel() for p in chosen.values()]
        self.vector = torch.cat([p.flatten() for p in chosen.values()])

    def __len__(self) -> int:
        return len(self.vector)

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """A vector shaped like w, as name -> tensor (views)."""
        parts = vector.split(self.sizes)
        return {
            name: part.view(shape)
            for name, part, shape in zip(self.names, parts, self.shapes, strict=True)
        }

    def moved(self, step: Tensor) -> At:
        """The model at w + step."""
        return At(self.model, self.named(self.vector + step))

    def flat(self, tensors: dict[str, Tensor]) -> Tensor:
        """The inverse of ``named``."""
        return torch.cat([tensors[name].flatten() for name in self.names])

    def per_layer(self, values: Iterable[float] | Tensor) -> Tensor:
        """One number per parameter tensor, repeated over its entries."""
        repeats = torch.tensor(self.sizes, device=self.vector.device)
        numbers = torch.as_tensor(list(values), dtype=self.vector.dtype, device=repeats.device)
        return numbers.repeat_interleave(repeats)

    def layer_norms(self, vector: Tensor) -> Tensor:
        """l2 norm of each parameter tensor's part of ``vector``."""
        return torch.stack([part.norm() for part in vector.split(self.sizes)])

    def loss_and_gradient(
        self, context: Context, vector: Tensor, images: Tensor, labels: Tensor, loss: Loss
    ) -> tuple[float, Tensor]:
        """Mean loss over the images with the weights at ``vector``, and its gradient there."""
        total, gradient = 0.0, torch.zeros_like(vector)
        for x, y in context.batches(images, labels):
            at = vector.detach().requires_grad_(True)
            batch_loss = loss(At(self.model, self.named(at))(x), y).sum()
            total += float(batch_loss.detach())
            gradient += torch.autograd.grad(batch_loss, at)[0]
        return total / len(labels), gradient / len(labels)

    def noise(self, stream: torch.Generator) -> Tensor:
        """Standard normal noise shaped like w, drawn on the CPU: the same on every device."""
        return torch.randn(len(self), generator=stream).to(self.vector)


def linear_weight_names(model: nn.Module, *, biases: bool = False) -> list[str]:
    """Parameters of convolutions and linear layers: no batch-norm, and no biases unless wanted."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    wanted = ("weight", "bias") if biases else ("weight",)
    return [
        f"{module_name}.{name}".removeprefix(".")
        for module_name, module in model.named_modules()
        if isinstance(module, kinds)
        for name, _ in module.named_parameters(recurse=False)
        if name in wanted
    ]


def mean_loss(context: Context, model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy, in nats."""
    return float(F.cross_entropy(context.logits(model, images).double(), labels))
