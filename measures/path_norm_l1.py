"""The l1 path norm, which bounds the network's Lipschitz constant."""

from __future__ import annotations

from measures.engine.context import Context
from measures.path_norm import log_path_norm


def path_norm_l1(context: Context) -> float:
    """log Σ_paths Π |w|, over all paths from input or bias to output; batch-norm folded.
    Gonon, Brisebarre, Riccietti & Gribonval, ICLR 2024 (L^q path-norm, q = 1).

    Between ‖z(x) - z(x')‖₁ and ‖x - x'‖∞ the network's Lipschitz constant is at most its
    exponential (without the input normalisation). Linear layer: log(Σ|w| + Σ|b|).
    """
    return log_path_norm(context, power=1)
