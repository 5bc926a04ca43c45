"""How far the prediction moves under attack."""

from __future__ import annotations

import torch.nn.functional as F

from measures.engine.context import Context


def kl_divergence(context: Context) -> float:
    """(1/N) Σ KL(p(x) ‖ p(x')), in nats, clean prediction first.
    Zhang et al., ICML 2019 (TRADES), whose inner term it is.

    x' are the shared PGD examples, which maximise the cross-entropy, not the KL itself.
    """
    clean = context.clean.logits.double().log_softmax(dim=1)
    adversarial = context.adversarial.logits.double().log_softmax(dim=1)
    return float(F.kl_div(adversarial, clean, log_target=True, reduction="batchmean"))
