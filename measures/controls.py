"""Plain properties of the predictions: what any better measure has to beat."""

from __future__ import annotations

import torch

from measures.engine.context import Context, On


def train_accuracy(context: Context, *, on: On) -> float:
    """Share of the images that are classified correctly, in [0, 1].
    Half of the gap itself: the baseline that every measure on PGD examples is close to.
    """
    data = context.on(on)
    return float((data.logits.argmax(dim=1) == data.labels).double().mean())


def entropy(context: Context, *, on: On) -> float:
    """Mean entropy of the predicted distribution, in nats, from 0 to log K.
    Shannon 1948; as a predictor of generalization Jiang et al., ICLR 2020.
    """
    log_p = context.on(on).logits.double().log_softmax(dim=1)
    return float(-(log_p.exp() * log_p).sum(dim=1).mean())


def logit_norm(context: Context, *, on: On) -> float:
    """Mean l2 norm of the centred logits (their mean over the classes subtracted).
    A control for the scale of the logits; softmax does not see the mean.
    """
    logits = context.on(on).logits.double()
    return float((logits - logits.mean(dim=1, keepdim=True)).norm(dim=1).mean())


def ece(context: Context, *, on: On, bins: int = 15) -> float:
    """Expected calibration error: Σ_b (n_b/N) |accuracy_b - confidence_b|, bins of equal width.
    Guo et al., ICML 2017, eq. 3.
    """
    data = context.on(on)
    confidence, predicted = data.logits.double().softmax(dim=1).max(dim=1)
    correct = (predicted == data.labels).double()
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    difference = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    difference.index_add_(0, bin_of, correct - confidence)
    return float(difference.abs().sum() / len(correct))
