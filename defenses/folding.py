"""Batch norm as part of the convolution before it, while a network is attacked.

In eval mode a batch norm multiplies and shifts each channel by constants, which the convolution's
weights can do as well: the same function up to rounding, and a pass over every feature map less
in each direction. An attack runs a network many times between two changes of its weights, so
there it pays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

BatchNorm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
Absorbing = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def absorbing_call(norm: fx.Node, modules: Mapping[str, nn.Module]) -> fx.Node | None:
    """Where a graph calls the layer that can take in the batch norm that ``norm`` calls.

    It directly precedes the batch norm, feeds nothing else, and is called only there. None if
    there is no such layer, or ``norm`` calls no batch norm.
    """
    if norm.op != "call_module" or not isinstance(modules[str(norm.target)], BatchNorm):
        return None
    before = norm.args[0]
    if (
        isinstance(before, fx.Node)
        and before.op == "call_module"
        and isinstance(modules[str(before.target)], Absorbing)
        and len(before.users) == 1
        and _calls(norm.graph)[str(before.target)] == 1
    ):
        return before
    return None


def _calls(graph: fx.Graph) -> Counter[str]:
    """How often a graph calls each module, by name."""
    return Counter(str(node.target) for node in graph.nodes if node.op == "call_module")


class _Pair(NamedTuple):
    """A layer, and the batch norm that it takes in: ``name`` in ``parent``."""

    layer: nn.Module
    norm: nn.Module
    parent: nn.Module
    name: str


_pairs: WeakKeyDictionary[nn.Module, list[_Pair]] = WeakKeyDictionary()


@contextmanager
def folded(model: nn.Module) -> Iterator[None]:
    """Inside, ``model`` is its own eval mode with batch norm folded in; afterwards as it was.

    Only for running it in eval mode with constant weights: inside, the parameters of the layers
    that took in a batch norm are not the model's own. Other batch norms stay.

    Raises:
        ValueError: torch.fx cannot trace the network.
    """
    pairs = _pairs.get(model)
    if pairs is None:
        pairs = _pairs[model] = _find_pairs(model)
    originals = [dict(pair.layer._parameters) for pair in pairs]
    try:
        for layer, norm, parent, name in pairs:
            layer._parameters.update(_fused(layer, norm))
            parent._modules[name] = nn.Identity()
        yield
    finally:
        for (layer, norm, parent, name), original in zip(pairs, originals, strict=True):
            layer._parameters.update(original)
            parent._modules[name] = norm


@torch.no_grad()
def _fused(layer: nn.Module, norm: nn.Module) -> dict[str, nn.Parameter]:
    assert isinstance(layer, Absorbing)
    assert isinstance(norm, BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        layer.weight, layer.bias,
        norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias,
    )  # fmt: skip
    return {"weight": weight, "bias": bias}


def _find_pairs(model: nn.Module) -> list[_Pair]:
    try:
        graph = fx.Tracer().trace(model)
    except Exception as error:  # what tracing runs is the network's own code
        raise ValueError(
            f"training.fold_batch_norm=true needs a network that torch.fx can trace: {error}"
        ) from error
    modules = dict(model.named_modules())
    pairs = []
    for node in graph.nodes:
        before = absorbing_call(node, modules)
        if before is None or _calls(graph)[str(node.target)] > 1:
            continue
        norm = modules[str(node.target)]
        if norm.running_mean is not None:
            parent, _, name = str(node.target).rpartition(".")
            pairs.append(_Pair(modules[str(before.target)], norm, modules[parent], name))
    return pairs
