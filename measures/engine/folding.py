"""Batch-norm folded into the convolutions, by the graph of the network.

Weights in front of a batch-norm have no scale of their own: doubling them changes nothing. Norms
are therefore taken of the linear maps the network really applies. Walking modules in order of
registration, as is common, folds wrongly wherever a batch-norm follows a residual sum (every
pre-activation network); the traced graph says which map feeds which batch-norm.
"""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from defenses.folding import Absorbing, BatchNorm, absorbing_call
from measures.engine.measure import Undefined

TOLERANCE = 1e-4  # of the logits, relative to their largest

SUPPORTED_MODULES = (
    *Absorbing,
    *BatchNorm,
    nn.Identity,
    nn.Flatten,
    nn.Dropout,
    nn.Dropout2d,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Softplus,
    nn.Tanh,
    nn.AvgPool2d,
    nn.MaxPool2d,
    nn.AdaptiveAvgPool2d,
)
SUPPORTED_FUNCTIONS = {
    *(operator.add, operator.iadd, torch.add, operator.sub, torch.sub),
    *(operator.truediv, torch.div, operator.mul, torch.mul),
    *(operator.getitem, operator.floordiv, getattr),
    *(torch.flatten, torch.reshape, torch.mean, torch.relu, F.relu, F.relu_),
    *(F.leaky_relu, F.silu, F.gelu, F.dropout),
    *(F.avg_pool2d, F.max_pool2d, F.adaptive_avg_pool2d),
}
SUPPORTED_METHODS = {"view", "reshape", "flatten", "mean", "relu", "relu_", "add", "add_", "size"}
SUPPORTED_METHODS |= {"contiguous", "squeeze"}
# Only with a constant: multiplying two feature maps is attention or gating, no linear layer.
WITH_CONSTANT = {operator.sub, torch.sub, operator.truediv, torch.div, operator.mul, torch.mul}


class Diagonal(nn.Module):
    """A batch-norm that nothing absorbs: x·scale + shift for each channel."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(scale)
        self.bias = nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        return x * self.weight.view(shape) + self.bias.view(shape)


@dataclass(frozen=True)
class LinearMap:
    """A linear map of the network, where it is applied: one application is one map.

    ``input_shape`` is that of one example's input, e.g. (C, H, W).
    """

    name: str
    module: nn.Module
    input_shape: tuple[int, ...]

    @property
    def weight(self) -> Tensor:
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight.detach()


@dataclass(frozen=True)
class Folded:
    """A network without batch-norm that gives the same logits, and its linear maps in order."""

    model: fx.GraphModule
    maps: list[LinearMap]


def fold(model: nn.Module, images: Tensor) -> Folded:
    """Fold every batch-norm that directly follows a map of its own into that map.

    A batch-norm is folded when its input is a convolution or linear layer that feeds nothing
    else; the others (after a residual sum, or a ReLU) stay as ``Diagonal`` layers with scale
    γ/√(var+ε). ``model`` is in eval mode and stays as it is. ``Undefined`` with the reason when
    the network cannot be traced or holds something outside the graphs handled here.
    """
    network = trace(model)
    check_supported(network)
    modules = dict(network.named_modules())
    for node in list(network.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, BatchNorm):
            continue
        scale, shift = scale_and_shift(str(node.target), norm)
        producer = absorbing_call(node, modules)
        if producer is not None:
            absorb(modules[str(producer.target)], scale, shift)
            node.replace_all_uses_with(producer)
            network.graph.erase_node(node)
        else:
            network.add_submodule(str(node.target), Diagonal(scale.float(), shift.float()))
    network.delete_all_unused_submodules()  # the folded batch-norms
    network.recompile()
    assert_same_logits(model, network, images)
    return Folded(network, linear_maps(network, images[:1]))


def trace(model: nn.Module) -> fx.GraphModule:
    """The graph of a copy of ``model``. ``Undefined`` when it has none (flow by tensor values)."""
    try:
        return fx.symbolic_trace(copy.deepcopy(model))
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise Undefined(
            f"batch-norm cannot be folded: the network has no graph ({first})"
        ) from error


def check_supported(network: fx.GraphModule) -> None:
    """``Undefined`` naming the first operation that folding does not know."""
    modules = dict(network.named_modules())
    depends = depending_on_image(network)
    for node in depends:
        match node.op:
            case "call_module":
                module = modules[str(node.target)]
                known = isinstance(module, SUPPORTED_MODULES)
                name = type(module).__name__
            case "call_function":
                constant = any(argument not in depends for argument in node.args)
                known = node.target in SUPPORTED_FUNCTIONS
                known = known and (node.target not in WITH_CONSTANT or constant)
                name = getattr(node.target, "__name__", str(node.target))
            case "call_method":
                known, name = node.target in SUPPORTED_METHODS, str(node.target)
            case _:
                continue
        if not known:
            raise Undefined(f"batch-norm cannot be folded: {name} is outside the known graphs")


def depending_on_image(network: fx.GraphModule) -> dict[fx.Node, None]:
    """The nodes whose value depends on the image, in order; the others are constants."""
    found: dict[fx.Node, None] = {}
    for node in network.graph.nodes:
        if node.op == "placeholder" or any(used in found for used in node.all_input_nodes):
            found[node] = None
    return found


def scale_and_shift(name: str, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What an eval-mode batch-norm applies: γ/√(var+ε) and β - μγ/√(var+ε), in float64."""
    assert isinstance(norm, BatchNorm)
    if norm.running_mean is None or norm.running_var is None:
        raise Undefined(f"batch-norm cannot be folded: {name} keeps no running statistics")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale, shift


@torch.no_grad()
def absorb(layer: nn.Module, scale: Tensor, shift: Tensor) -> None:
    """Make ``layer`` do what it and the batch-norm behind it did."""
    assert isinstance(layer, Absorbing)
    weight = layer.weight
    by_output = scale.view(-1, *[1] * (weight.ndim - 1))
    bias = shift if layer.bias is None else shift + scale * layer.bias.double()
    layer.weight = nn.Parameter((weight.double() * by_output).to(weight.dtype))
    layer.bias = nn.Parameter(bias.to(weight.dtype))


@torch.no_grad()
def assert_same_logits(model: nn.Module, network: nn.Module, images: Tensor) -> None:
    expected, found = model(images), network(images)
    error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))
    assert error < TOLERANCE, f"folding batch-norm changed the logits by {error:.1e}"


@torch.no_grad()
def linear_maps(model: nn.Module, image: Tensor) -> list[LinearMap]:
    """The convolutions, linear and diagonal layers that ``model`` applies to ``image``, in order.

    Works on any network, folded or not; batch-norm layers themselves are not listed.
    """
    maps: list[LinearMap] = []
    kinds = (*Absorbing, Diagonal)
    hooks = [
        module.register_forward_pre_hook(
            lambda m, x, name=name: maps.append(LinearMap(name, m, tuple(x[0].shape[1:])))
        )
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    try:
        model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return maps
