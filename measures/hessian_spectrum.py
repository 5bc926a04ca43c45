"""Curvature of the loss by all trainable weights: trace, largest eigenvalue, dimension."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from measures.engine.context import Context, On
from measures.engine.estimate import over_draws
from measures.engine.hessian import LossHessian
from measures.engine.lanczos import lanczos, ritz_values
from measures.engine.measure import Estimate

DIRECTIONS = 10  # of the subspace on which traces are exact
PROBES_AT_ONCE = 8  # bounds the memory of the vectors


def hessian_trace(context: Context, *, on: On, probes: int = 40, examples: int = 128) -> Estimate:
    """tr H of the mean cross-entropy: E vᵀHv over random signs v, beside the leading directions.
    Yao, Gholami, Keutzer & Mahoney, IEEE Big Data 2020 (PyHessian); Meyer et al. 2021 (Hutch++).

    A loss of K classes has about K large eigenvalues, which make up most of Hutchinson's scatter;
    they are taken exactly on a subspace that ``DIRECTIONS`` products find. A fixed number of
    probes: stopping when the running mean settles can stop by luck.
    """
    return over_draws(layer_traces(context, on, probes, examples).sum(dim=1))


def weight_curvature(
    context: Context, *, on: On, probes: int = 40, examples: int = 128
) -> Estimate:
    """Σ_l √(‖W_l‖_F² · tr H_l) over the parameter tensors, H_l the Hessian's block of W_l.
    After the weight-curvature index, arXiv 2410.07719; its exact form is not confirmed.

    Rescaling ReLU layers changes nothing. Traces estimated below 0 count as 0. The error is a
    jackknife over the probes.
    """
    traces = layer_traces(context, on, probes, examples)
    weights = LossHessian(context, context.images[:1], context.labels[:1]).weights
    norms = weights.layer_norms(weights.vector).double().cpu()

    def total(mean_traces: Tensor) -> float:
        return float((norms * mean_traces.clamp_min(0).sqrt()).sum())

    count = len(traces)
    without = torch.tensor([total((traces.sum(0) - t) / (count - 1)) for t in traces])
    se = math.sqrt((count - 1) * float(without.double().var(correction=0)))
    return Estimate(total(traces.mean(dim=0)), se)


def hessian_top(context: Context, *, on: On, examples: int = 128) -> float:
    """Largest eigenvalue of the Hessian of the mean cross-entropy, by the Lanczos method.
    Yao, Gholami, Keutzer & Mahoney, IEEE Big Data 2020 (PyHessian).

    The algebraically largest: power iteration finds the largest magnitude, which can be negative.
    """
    hessian = hessian_on(context, on, examples)
    start = hessian.probes(1, "hessian top eigenvalue")[0]
    return float(ritz_values(hessian.product, start, max_steps=60, tolerance=1e-2)[-1])


def effective_dimension(
    context: Context,
    *,
    on: On,
    prior: float = 1.0,
    probes: int = 4,
    steps: int = 12,
    examples: int = 64,
) -> Estimate:
    """Σ_i λ_i/(λ_i + c) over the Hessian's positive eigenvalues: directions the data determine.
    MacKay 1992; Maddox, Benton & Wilson 2020; on adversarial training arXiv 2410.18556.

    By stochastic Lanczos quadrature: n·Σ_k τ_k² f(θ_k) per probe, θ Ritz values, τ weights.
    """
    hessian = hessian_on(context, on, examples)
    found = []
    for probe in hessian.probes(probes, "effective dimension"):
        nodes, vectors = torch.linalg.eigh(
            lanczos(hessian.product, probe, max_steps=steps, tolerance=0)
        )
        positive = nodes.clamp_min(0)
        found.append(len(probe) * (vectors[0] ** 2 * positive / (positive + prior)).sum())
    return over_draws(torch.stack(found))


def layer_traces(context: Context, on: On, probes: int, examples: int) -> Tensor:
    """``(P, L)`` float64: an estimate from each probe of the trace of each diagonal block l."""
    key = ("hessian traces", on, probes, examples)
    return context.once(key, lambda: sampled_traces(context, on, probes, examples))


def sampled_traces(context: Context, on: On, probes: int, examples: int) -> Tensor:
    """tr_l H = tr_l PH + tr_l (1-P)HP + tr_l (1-P)H(1-P), P the projection on a subspace q_j.

    The first two are sums over the q_j; only the last is estimated, as v_lᵀ((1-P)H(1-P)v)_l.
    """
    hessian = hessian_on(context, on, examples)
    sketch = hessian.products(hessian.probes(DIRECTIONS, "hessian trace directions"))
    q = torch.linalg.qr(sketch.T).Q.T  # (D, n), orthonormal rows

    def beside(vectors: Tensor) -> Tensor:
        remainder: Tensor = vectors - (vectors @ q.T) @ q
        return remainder

    def by_layer(products: Tensor) -> Tensor:
        parts = products.double().split(hessian.weights.sizes, dim=1)
        return torch.stack([part.sum(dim=1) for part in parts], dim=1)

    h_q = hessian.products(q)
    exact = by_layer(q * (h_q + beside(h_q))).sum(dim=0)
    rows = []
    for first in range(0, probes, PROBES_AT_ONCE):
        count = min(PROBES_AT_ONCE, probes - first)
        v = hessian.probes(count, f"hessian trace/{first}")
        rows.append(exact + by_layer(v * beside(hessian.products(beside(v)))))
    return torch.cat(rows).cpu()


def hessian_on(context: Context, on: On, examples: int) -> LossHessian:
    data = context.on(on)
    return LossHessian(context, data.images[:examples], data.labels[:examples])
