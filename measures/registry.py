"""Every measure by name: an explicit list, so that a name leads to its file with one search."""

from __future__ import annotations

from measures import (
    average_ce,
    estimated_sharpness,
    gradient_norms,
    kl_divergence,
    margins,
)
from measures.engine.measure import Measure, Need

ADVERSARIAL: frozenset[Need] = frozenset({"adversarial"})
CLEAN: frozenset[Need] = frozenset({"clean"})
GRADIENTS: frozenset[Need] = frozenset({"gradients"})

MEASURES: dict[str, Measure] = {
    # margin
    "average_ce": Measure(
        function=average_ce.average_ce,
        family="margin",
        needs=ADVERSARIAL,
        expected_sign=-1,
        variant={"on": "adversarial"},
    ),
    "average_ce_clean": Measure(
        function=average_ce.average_ce,
        family="margin",
        needs=CLEAN,
        expected_sign=-1,
        variant={"on": "clean"},
    ),
    "inverse_margin": Measure(
        function=margins.inverse_margin,
        family="margin",
        needs=ADVERSARIAL,
        expected_sign=1,
        variant={"on": "adversarial"},
    ),
    "prob_margin": Measure(
        function=margins.prob_margin,
        family="margin",
        needs=ADVERSARIAL,
        expected_sign=1,
        variant={"on": "adversarial"},
    ),
    # smoothness
    "kl_divergence": Measure(
        function=kl_divergence.kl_divergence,
        family="smoothness",
        needs=CLEAN | ADVERSARIAL,
        expected_sign=None,
    ),
    # flatness
    "estimated_sharpness": Measure(
        function=estimated_sharpness.estimated_sharpness,
        family="flatness",
        needs=ADVERSARIAL | GRADIENTS,
        expected_sign=1,
        variant={"on": "adversarial"},
    ),
    "estimated_inv_sharpness": Measure(
        function=estimated_sharpness.estimated_inv_sharpness,
        family="flatness",
        needs=ADVERSARIAL | GRADIENTS,
        expected_sign=1,
        variant={"on": "adversarial"},
    ),
    # gradient
    "x_grad_norm": Measure(
        function=gradient_norms.x_grad_norm,
        family="gradient",
        needs=ADVERSARIAL | GRADIENTS,
        expected_sign=-1,
        variant={"on": "adversarial", "norm": "l2"},
    ),
    "w_grad_norm": Measure(
        function=gradient_norms.w_grad_norm,
        family="gradient",
        needs=ADVERSARIAL | GRADIENTS,
        expected_sign=-1,
        variant={"on": "adversarial"},
    ),
}

SETS: dict[str, tuple[str, ...]] = {
    "default": tuple(MEASURES),
    "paper": tuple(MEASURES),
    "cheap": tuple(MEASURES),
    "all": tuple(MEASURES),
}
