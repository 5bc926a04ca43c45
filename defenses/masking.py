"""Is PGD-10 fooled? A cheap check of a model's robust accuracy by attacks of other kinds.

Models can look robust because the attack's gradients are useless, not because there is nothing
to find (Athalye, Carlini & Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML
2018, https://arxiv.org/abs/1802.00420, section 3.1). Single-step training can end there by itself
(catastrophic overfitting: Wong, Rice & Kolter, ICLR 2020, https://arxiv.org/abs/2001.03994).

The check asks whether PGD-10 is beaten by an attack that should be weaker, since it needs no
gradient; whether five times the steps break much more; and how many of its survivors have no
gradient at all. Attacks are compared whole, accuracy against accuracy: on small images even a weak
attack breaks some examples that PGD-10 missed, and misses others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from defenses.attacks.apgd import evaluate, surface_point
from defenses.attacks.inference import frozen
from defenses.attacks.losses import cross_entropy
from defenses.attacks.pgd import pgd
from defenses.attacks.square import square
from defenses.spec import Threat, require

DEFINITION = 2  # raised when a correction changes which models are flagged

QUERIES = 300  # of the black-box attack
MORE_STEPS = 50
# Share of all examples above which a check speaks. PGD-10 need not have converged, so more steps
# may break some more.
LIMITS = {"zero_gradient": 0.05, "black_box": 0.05, "more_steps": 0.10}
WORDS = {
    "zero_gradient": "a zero or non-finite gradient on",
    "black_box": f"Square with {QUERIES} queries breaks another",
    "more_steps": f"PGD-{MORE_STEPS} breaks another",
}


@dataclass(frozen=True, kw_only=True)
class MaskingReport:
    """How PGD-10 compares, each number a share of all ``examples`` that were looked at.

    ``masking``: some number is above its limit; ``reason`` then says which, else it is None.
    ``zero_gradient``: survivors of PGD-10 whose loss has a zero or non-finite gradient.
    ``black_box``, ``more_steps``: accuracy under PGD-10 minus accuracy under Square, and under
    PGD-50 from a new start.
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
    seed: int = 0,
    batch_size: int = 250,
) -> MaskingReport:
    """Look for robust accuracy that is only the attack's failure.

    ``x`` are a few hundred images ``(N, C, H, W)`` in [0, 1], ``y`` their labels, ``correct_pgd``
    ``(N,)`` bool says which PGD-10 at ``threat`` did not break.
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
                    step_size=threat.step_size, steps=MORE_STEPS, start=start,
                ),
            }  # fmt: skip
            right = model(images).argmax(dim=1) == labels
            for name, x_adv in tries.items():
                withstood[name][rows] = right & (model(x_adv).argmax(dim=1) == labels)
            silent[rows] = correct_pgd[rows] & _gradient_is_silent(model, images, labels)

    by_pgd = float(correct_pgd.double().mean())
    lost = {name: by_pgd - float(flags.double().mean()) for name, flags in withstood.items()}
    lost["zero_gradient"] = float(silent.double().mean())
    reasons = [f"{WORDS[n]} {share:.1%}" for n, share in lost.items() if share > LIMITS[n]]
    return MaskingReport(
        masking=bool(reasons),
        reason=f"PGD-10 leaves {by_pgd:.1%}; " + "; ".join(reasons) if reasons else None,
        examples=len(x),
        zero_gradient=lost["zero_gradient"],
        black_box=lost["black_box"],
        more_steps=lost["more_steps"],
    )


def _gradient_is_silent(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the cross-entropy's gradient in the image is zero or not finite ``(N,)``."""
    _, gradient, _ = evaluate(model, lambda logits, y, _: cross_entropy(logits, y), x, y, target=y)
    largest = gradient.flatten(1).abs().amax(dim=1)
    return (largest == 0) | ~largest.isfinite()
