"""Is PGD fooled? A cheap check of a model's robust accuracy by attacks of other kinds.

Models can look robust because the attack's gradients are useless, not because there is nothing
to find (Athalye, Carlini & Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML
2018, https://arxiv.org/abs/1802.00420, section 3.1). Single-step training can end there by itself
(catastrophic overfitting: Wong, Rice & Kolter, ICLR 2020, https://arxiv.org/abs/2001.03994).

The check asks whether the PGD of a study (PGD-10 in the paper's) is beaten by an attack that should
be weaker, since it needs no gradient; whether five times the steps break much more; and how many of
its survivors have no gradient at all. Attacks are compared whole, accuracy against accuracy: on
small images even a weak attack breaks some examples that PGD missed, and misses others. A few
hundred of them then differ by some points through chance alone, so a difference must also be one
that equally strong attacks hardly ever show: the exact test of McNemar ("Note on the sampling error
of the difference between correlated proportions or percentages", Psychometrika 12, 1947).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from defenses.attacks.apgd import evaluate, surface_point
from defenses.attacks.inference import frozen
from defenses.attacks.losses import cross_entropy
from defenses.attacks.pgd import pgd
from defenses.attacks.square import square
from defenses.spec import Threat, require

DEFINITION = 3  # raised when a correction changes which models are flagged

QUERIES = 300  # of the black-box attack
MORE_STEPS = 5  # times those of the study's PGD
# Share of all examples above which a check speaks. PGD need not have converged, so more steps may
# break some more.
LIMITS = {"zero_gradient": 0.05, "black_box": 0.05, "more_steps": 0.10}
LEVEL = 0.01  # of the test whether one attack breaks more than the other


@dataclass(frozen=True, kw_only=True)
class MaskingReport:
    """How the study's PGD compares, each number a share of all ``examples`` that were looked at.

    ``masking``: some number is above its limit, and not by chance; ``reason`` then says which, else
    it is None. ``zero_gradient``: survivors of PGD whose loss has a zero or non-finite gradient.
    ``black_box``, ``more_steps``: accuracy under PGD minus accuracy under Square, and under PGD
    with five times the steps from a new start.
    """

    masking: bool
    reason: str | None
    examples: int
    zero_gradient: float
    black_box: float
    more_steps: float


def check(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    correct_pgd: Tensor,
    steps: int = 10,
    seed: int = 0,
    batch_size: int = 250,
) -> MaskingReport:
    """Look for robust accuracy that is only the attack's failure.

    ``x`` are a few hundred images ``(N, C, H, W)`` in [0, 1], ``y`` their labels, ``correct_pgd``
    ``(N,)`` bool says which PGD with ``steps`` steps at ``threat`` did not break.
    """
    require(len(x) > 0, "a masking check needs at least one image")
    require(
        correct_pgd.shape == y.shape,
        f"correct_pgd has shape {tuple(correct_pgd.shape)}, the labels {tuple(y.shape)}",
    )
    eps, norm = threat.eps, threat.norm
    correct_pgd = correct_pgd.to(x.device)
    silent = torch.zeros_like(correct_pgd)
    withstood = {n: silent.clone() for n in ("black_box", "more_steps")}
    with frozen(model), torch.no_grad():
        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            images, labels = x[rows], y[rows]
            start = surface_point(images, eps, norm, seed, "masking", rows, 0)
            tries = {
                "black_box": square(
                    model, images, labels, eps=eps, norm=norm,
                    queries=QUERIES, seed=seed, indices=rows,
                ),
                "more_steps": pgd(
                    model, images, labels, eps=eps, norm=norm,
                    step_size=threat.step_size, steps=MORE_STEPS * steps, start=start,
                ),
            }  # fmt: skip
            right = model(images).argmax(dim=1) == labels
            for name, x_adv in tries.items():
                withstood[name][rows] = right & (model(x_adv).argmax(dim=1) == labels)
            silent[rows] = correct_pgd[rows] & _gradient_is_silent(model, images, labels)

    by_pgd = float(correct_pgd.double().mean())
    words = {
        "black_box": f"Square with {QUERIES} queries",
        "more_steps": f"PGD-{MORE_STEPS * steps}",
    }
    lost, reasons = {}, []
    for name, flags in withstood.items():
        broken = int((correct_pgd & ~flags).sum())
        missed = int((flags & ~correct_pgd).sum())
        lost[name] = (broken - missed) / len(x)
        if lost[name] > LIMITS[name] and _by_chance(broken, missed) < LEVEL:
            reasons.append(
                f"{words[name]} breaks another {lost[name]:.1%} "
                f"({broken} of {len(x)} examples more, {missed} fewer)"
            )
    lost["zero_gradient"] = float(silent.double().mean())
    if lost["zero_gradient"] > LIMITS["zero_gradient"]:
        reasons.append(f"a zero or non-finite gradient on {lost['zero_gradient']:.1%}")
    return MaskingReport(
        masking=bool(reasons),
        reason=f"PGD-{steps} leaves {by_pgd:.1%}; " + "; ".join(reasons) if reasons else None,
        examples=len(x),
        **lost,
    )


def _by_chance(more: int, fewer: int) -> float:
    """Chance that an equally strong attack breaks so many ``more`` examples (exact, one-sided)."""
    return float(binomtest(more, more + fewer, alternative="greater").pvalue)


def _gradient_is_silent(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the cross-entropy's gradient in the image is zero or not finite ``(N,)``."""
    _, gradient, _ = evaluate(model, lambda logits, y, _: cross_entropy(logits, y), x, y, target=y)
    largest = gradient.flatten(1).abs().amax(dim=1)
    return (largest == 0) | ~largest.isfinite()
