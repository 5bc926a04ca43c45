"""Is PGD-10 fooled? A cheap check of a model's robust accuracy by attacks of other kinds.

Models can look robust because the attack's gradients are useless, not because there is nothing
to find (Athalye, Carlini & Wagner, "Obfuscated Gradients Give a False Sense of Security", ICML
2018, https://arxiv.org/abs/1802.00420, section 3.1). Single-step training can end there by itself
(catastrophic overfitting: Wong, Rice & Kolter, ICLR 2020, https://arxiv.org/abs/2001.03994).

The check asks what PGD-10 missed. Of the examples that survived it, how many have no gradient at
all, and how many fall to an attack that needs no gradient, to images that break another model, or
to five times the steps? Honest models lose 0 to 3 points of accuracy to any of these, masked ones
tens of points.
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
from defenses.attacks.threat import geometry
from defenses.spec import Threat, require

DEFINITION = 1  # raised when a correction changes which models are flagged

QUERIES = 300  # of the black-box attack
MORE_STEPS = 50
LIMIT = 0.05  # accuracy that an honest PGD-10 may lose to one of the checks
WORDS = {
    "zero_gradient": "zero or non-finite gradient on",
    "black_box": f"Square with {QUERIES} queries breaks",
    "more_steps": f"PGD-{MORE_STEPS} breaks",
    "transferred": "transferred images break",
}


@dataclass(frozen=True, kw_only=True)
class MaskingReport:
    """What PGD-10 missed, each number a share of all ``examples`` that were looked at.

    ``masking``: some number is above ``LIMIT``; ``reason`` then says which, else it is None.
    ``zero_gradient``: survivors of PGD-10 whose loss has a zero or non-finite gradient.
    ``black_box``, ``more_steps``: survivors broken by Square and by PGD-50 from a new start.
    ``transferred``: survivors broken by the images given, None if there were none.
    """

    masking: bool
    reason: str | None
    examples: int
    zero_gradient: float
    black_box: float
    more_steps: float
    transferred: float | None


def check(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    correct_pgd: Tensor,
    transferred: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 250,
) -> MaskingReport:
    """Look for robust accuracy that is only the attack's failure.

    ``x`` are a few hundred images ``(N, C, H, W)`` in [0, 1], ``y`` their labels, ``correct_pgd``
    ``(N,)`` bool says which PGD-10 at ``threat`` did not break. ``transferred`` are adversarial
    images of the same examples made on another model; those outside the ball are projected.
    """
    require(len(x) > 0, "a masking check needs at least one image")
    require(
        correct_pgd.shape == y.shape,
        f"correct_pgd has shape {tuple(correct_pgd.shape)}, the labels {tuple(y.shape)}",
    )
    eps, norm = threat.eps, threat.norm
    survivors = correct_pgd.to(x.device).nonzero().squeeze(1)
    silent = torch.zeros_like(y, dtype=torch.bool)
    missed = {name: torch.zeros_like(silent) for name in ("black_box", "more_steps", "transferred")}
    with frozen(model), torch.no_grad():
        for rows in survivors.split(batch_size):
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
            if transferred is not None:
                tries["transferred"] = geometry(norm).project(transferred[rows], images, eps)
            for name, x_adv in tries.items():
                missed[name][rows] = model(x_adv).argmax(dim=1) != labels
            silent[rows] = _gradient_is_silent(model, images, labels)

    shares = {"zero_gradient": silent, **missed}
    lost = {name: float(flags.double().mean()) for name, flags in shares.items()}
    reasons = [f"{WORDS[name]} {share:.1%}" for name, share in lost.items() if share > LIMIT]
    return MaskingReport(
        masking=bool(reasons),
        reason="of all examples, PGD-10 missed: " + "; ".join(reasons) if reasons else None,
        examples=len(x),
        zero_gradient=lost["zero_gradient"],
        black_box=lost["black_box"],
        more_steps=lost["more_steps"],
        transferred=None if transferred is None else lost["transferred"],
    )


def _gradient_is_silent(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the cross-entropy's gradient in the image is zero or not finite ``(N,)``."""
    _, gradient, _ = evaluate(model, lambda logits, y, _: cross_entropy(logits, y), x, y, target=y)
    largest = gradient.flatten(1).abs().amax(dim=1)
    return (largest == 0) | ~largest.isfinite()
