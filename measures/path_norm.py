"""Path norms: the weights multiplied along every path from a pixel to a logit, in one pass."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call

from measures.engine.context import Context
from measures.engine.folding import Diagonal, depending_on_image
from measures.engine.measure import Undefined


def path_norm(context: Context) -> float:
    """log Σ_paths Π w², over all paths from input or bias to output; batch-norm folded.
    Neyshabur et al., COLT 2015; Jiang et al., ICLR 2020.

    Linear layer: log(Σw² + Σb²). Rescaling a ReLU layer by c and the next by 1/c changes nothing.
    """
    return log_path_norm(context, power=2)


def path_norm_over_margin(context: Context) -> float:
    """log (Σ_paths Π w² / γ²), γ the 10th percentile of the margin on the PGD examples.
    Dziugaite et al., NeurIPS 2020, eq. 43. Undefined for γ <= 0.
    """
    return log_path_norm(context, power=2) - 2 * context.adversarial.log_margin


def log_path_norm(context: Context, *, power: int) -> float:
    """log Σ_paths Π |w|^power of the folded network.

    Computed by a forward pass of ones through the network with every weight replaced by
    |w|^power, in float64, each tensor with its own logarithmic scale so that depth cannot
    overflow. The input normalisation is no part of the path; an average-pooling of n inputs is n
    weights of 1/n; a max-pooling, which passes any one of its inputs, is n weights of 1.
    """
    ones = torch.ones((1, *context.image_shape), dtype=torch.float64, device=context.device)
    return PathSums(context.folded.model, power).run_on(ones)


@dataclass(frozen=True)
class Scaled:
    """values · exp(log_scale), with values up to about 1."""

    values: Tensor
    log_scale: float

    def map(self, function: Callable[[Tensor], Tensor]) -> Scaled:
        """Apply a homogeneous function."""
        return Scaled(function(self.values), self.log_scale)

    def rescaled(self) -> Scaled:
        largest = float(self.values.max())
        if largest == 0:
            return self
        return Scaled(self.values / largest, self.log_scale + math.log(largest))

    def __add__(self, other: Scaled) -> Scaled:
        scale = max(self.log_scale, other.log_scale)
        return Scaled(
            self.values * math.exp(self.log_scale - scale)
            + other.values * math.exp(other.log_scale - scale),
            scale,
        )


class PathSums(fx.Interpreter):
    """Runs a folded network on path sums in place of activations.

    ``Undefined`` for what is not positively homogeneous (GELU, ...): its paths have no weights.
    """

    def __init__(self, network: fx.GraphModule, power: int) -> None:
        super().__init__(network)
        self.power = power
        self.varying = depending_on_image(network)

    def run_on(self, ones: Tensor) -> float:
        total = self.run(Scaled(ones, 0.0))
        assert isinstance(total, Scaled)
        return math.log(float(total.values.sum())) + total.log_scale

    @torch.no_grad()
    def run_node(self, n: fx.Node) -> Any:
        if n not in self.varying or n.op in ("placeholder", "output"):
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.op == "call_module":
            return self.through_module(self.fetch_attr(str(n.target)), *args)
        return through_function(n.target, args, kwargs, self.power)

    def through_module(self, module: nn.Module, x: Scaled) -> Scaled:
        match module:
            case nn.Conv1d() | nn.Conv2d() | nn.Conv3d() | nn.Linear() | Diagonal():
                return self.through_linear(module, x).rescaled()
            case nn.ReLU() | nn.Identity() | nn.Dropout() | nn.Dropout2d():
                return x
            case nn.Flatten():
                return x.map(module)
            case nn.AvgPool2d():
                return x.map(lambda t: average(module, t, self.power))
            case nn.AdaptiveAvgPool2d():
                return x.map(lambda t: adaptive_average(t, module.output_size, self.power))
            case nn.MaxPool2d():
                return x.map(lambda t: sum_pool(module, t))
        raise no_paths(type(module).__name__)

    def through_linear(self, module: nn.Module, x: Scaled) -> Scaled:
        powers = {
            name: p.detach().double().abs().pow(self.power) for name, p in module.named_parameters()
        }
        if "bias" in powers:  # a bias is a path from an input of 1, at true scale
            powers["bias"] = powers["bias"] * math.exp(-x.log_scale)
        return x.map(lambda t: functional_call(module, powers, (t,)))


def through_function(target: Any, args: Any, kwargs: Any, power: int) -> Any:
    """Functions and tensor methods of the graph, on path sums."""
    if target in (operator.add, operator.iadd, torch.add, "add", "add_"):
        return (args[0] + args[1]).rescaled() if isinstance(args[1], Scaled) else args[0]
    if target in (torch.relu, F.relu, F.relu_, "relu", "relu_", F.dropout, "contiguous"):
        return args[0]
    if target in (operator.sub, torch.sub, operator.truediv, torch.div, operator.mul, torch.mul):
        return args[0]  # with a constant: the input normalisation
    if target in (torch.flatten, torch.reshape):
        return args[0].map(lambda t: target(t, *args[1:], **kwargs))
    if target in ("view", "reshape", "flatten", "squeeze"):
        return args[0].map(lambda t: getattr(t, target)(*args[1:], **kwargs))
    if target in (torch.mean, "mean"):
        return args[0].map(lambda t: mean(t, power, *args[1:], **kwargs))
    if target is F.adaptive_avg_pool2d:
        return args[0].map(lambda t: adaptive_average(t, args[1], power))
    if target is F.avg_pool2d:
        return args[0].map(lambda t: average(nn.AvgPool2d(*args[1:], **kwargs), t, power))
    if target is F.max_pool2d:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        options = {**dict(zip(names, args[1:], strict=False)), **kwargs}
        pool = nn.MaxPool2d(**{name: options[name] for name in names if name in options})
        return args[0].map(lambda t: sum_pool(pool, t))
    if target == "size":
        return args[0].values.size(*args[1:])
    if target is getattr and args[1] == "shape":
        return args[0].values.shape
    if target in (operator.getitem, operator.floordiv):
        return target(*args)
    raise no_paths(getattr(target, "__name__", str(target)))


def average(pool: nn.AvgPool2d, x: Tensor, power: int) -> Tensor:
    """Σ_i x_i/n^power over each window; n counts the padding, as the pooling does."""
    if pool.padding not in (0, (0, 0)) and not pool.count_include_pad:
        raise no_paths("average pooling with windows of unequal size")
    n = math.prod(torch.nn.modules.utils._pair(pool.kernel_size))
    result: Tensor = pool(x) * math.pow(n, 1 - power)
    return result


def adaptive_average(x: Tensor, output_size: Any, power: int) -> Tensor:
    rows, columns = torch.nn.modules.utils._pair(output_size)
    height, width = x.shape[-2:]
    if height % rows or width % columns:
        raise no_paths("adaptive pooling with windows of unequal size")
    n = (height // rows) * (width // columns)
    return F.adaptive_avg_pool2d(x, (rows, columns)) * math.pow(n, 1 - power)


def mean(x: Tensor, power: int, *args: Any, **kwargs: Any) -> Tensor:
    averaged: Tensor = x.mean(*args, **kwargs)
    n = x.numel() / averaged.numel()
    return averaged * math.pow(n, 1 - power)


def sum_pool(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    if pool.dilation not in (1, (1, 1)) or pool.ceil_mode:
        raise no_paths("max-pooling with dilation or ceil_mode")
    kernel, stride = (torch.nn.modules.utils._pair(v) for v in (pool.kernel_size, pool.stride))
    padding = torch.nn.modules.utils._pair(pool.padding)
    summed: Tensor = F.avg_pool2d(x, kernel, stride, padding) * math.prod(kernel)
    return summed


def no_paths(what: str) -> Undefined:
    return Undefined(f"the path norm is not defined for {what}")
