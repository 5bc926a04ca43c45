"""Totals over the layers of the folded network."""

from __future__ import annotations

from measures.engine.context import Context, trainable
from measures.engine.measure import Undefined


def param_norm(context: Context) -> float:
    """Σ_l ‖W_l‖_F² over convolutions, linear and diagonal layers; batch-norm folded.
    Dziugaite et al., NeurIPS 2020, eq. 42.
    """
    return sum(norm**2 for norm in context.layer_norms("folded", "frobenius"))


def params(context: Context) -> float:
    """Number of trainable parameters of the model as it is; ties within an architecture.
    Dziugaite et al., NeurIPS 2020, eq. 20.
    """
    return float(sum(p.numel() for p in trainable(context.model).values()))


def fro_over_spec(context: Context) -> float:
    """Σ_l ‖W_l‖_F²/‖W_l‖₂², kernels' Frobenius norms over operator norms; batch-norm folded.
    Dziugaite et al., NeurIPS 2020, eq. 33 (a sum of stable ranks, for matrices).
    """
    return sum(f**2 / s**2 for f, s in both_norms(context))


def both_norms(context: Context) -> list[tuple[float, float]]:
    """(Frobenius, spectral) norm of each layer; ``Undefined`` if one is zero."""
    frobenius = context.layer_norms("folded", "frobenius")
    spectral = context.layer_norms("folded", "spectral")
    if not all(spectral):
        raise Undefined("a layer's weights are all zero")
    return list(zip(frobenius, spectral, strict=True))
