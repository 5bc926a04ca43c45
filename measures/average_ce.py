"""The loss itself."""

from __future__ import annotations

from measures.engine.context import Context, On


def average_ce(context: Context, *, on: On) -> float:
    """Mean cross-entropy, in nats: (1/N) Σ CE(z(x'), y).
    Kim et al., NeurIPS 2023 ("average_ce"); log K for uniform logits.
    """
    return float(context.on(on).cross_entropy.double().mean())
