"""How far training moved the weights."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import torch
from torch import nn

from measures.engine.context import Context, Weights
from measures.engine.folding import LinearMap
from measures.engine.operator_norm import spectral_norm


def euclid_init_norm(context: Context, *, weights: Weights) -> float:
    """‖w - w⁰‖₂ over the weights of all linear layers; w⁰ are those before training.
    Nagarajan & Kolter 2019; Dziugaite et al., NeurIPS 2020 (Frobenius distance).

    ``folded``: both networks with batch-norm folded, each with its own statistics.
    """
    pairs = layer_pairs(context, weights)
    squares = [(now.weight - then.weight).double().pow(2).sum() for now, then in pairs]
    return math.sqrt(float(torch.stack(squares).sum()))


def dist_spec_init(context: Context) -> float:
    """Σ_l ‖W_l - W_l⁰‖₂², operator norms, both networks with batch-norm folded.
    Dziugaite et al., NeurIPS 2020, eq. 41.
    """
    return sum(spectral_norm(difference(*pair)) ** 2 for pair in layer_pairs(context, "folded"))


def layer_pairs(context: Context, weights: Weights) -> list[tuple[LinearMap, LinearMap]]:
    """The linear maps now and before training, in the same order."""
    pairs = list(zip(context.layers(weights), context.initial_layers(weights), strict=True))
    assert all(now.name == then.name for now, then in pairs)
    return pairs


def difference(now: LinearMap, then: LinearMap) -> LinearMap:
    """The map with weight W - W⁰: a layer of the same kind, stride and padding."""
    module = copy.deepcopy(now.module)
    module.weight = nn.Parameter(now.weight - then.weight)
    return replace(now, module=module)
