"""Every measure by name: an explicit list, so that a name leads to its file with one search."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from measures import (
    average_ce,
    average_flat,
    boundary_thickness,
    distance_from_init,
    estimated_sharpness,
    gradient_norms,
    kl_divergence,
    local_lip,
    log_norm_sums,
    margins,
    pacbayes,
    path_norm,
)
from measures.engine.measure import Estimate, Family, Measure, Need


def entry(
    function: Callable[..., float | Estimate],
    family: Family,
    needs: tuple[Need, ...],
    sign: Literal[1, -1] | None,
    *,
    stochastic: bool = False,
    version: int = 1,
    **variant: Any,
) -> Measure:
    """One line of the list; see ``Measure`` for the fields."""
    return Measure(
        function=function,
        family=family,
        needs=frozenset(needs),
        expected_sign=sign,
        stochastic=stochastic,
        version=version,
        variant=variant,
    )


# What a measure looks at, in the words of its ``on``.
PGD: tuple[Need, ...] = ("adversarial",)
CLEAN: tuple[Need, ...] = ("clean",)
MEASURES: dict[str, Measure] = {
    # Weight norm
    "path_norm": entry(path_norm.path_norm, "weight norm", ("folded",), 1),
    "path_norm_over_margin": entry(
        path_norm.path_norm_over_margin, "weight norm", ("folded", *PGD), 1
    ),
    "log_prod_of_spec": entry(
        log_norm_sums.log_prod, "weight norm", ("folded",), 1, norm="spectral", weights="folded"
    ),
    "log_prod_of_spec_raw": entry(
        log_norm_sums.log_prod, "weight norm", ("weights",), 1, norm="spectral", weights="raw"
    ),
    "log_prod_of_fro": entry(
        log_norm_sums.log_prod, "weight norm", ("folded",), 1, norm="frobenius", weights="folded"
    ),
    "log_prod_of_fro_raw": entry(
        log_norm_sums.log_prod, "weight norm", ("weights",), 1, norm="frobenius", weights="raw"
    ),
    "log_prod_of_spec_over_margin": entry(
        log_norm_sums.log_prod_over_margin, "weight norm", ("folded", *PGD), 1, norm="spectral"
    ),
    "log_prod_of_fro_over_margin": entry(
        log_norm_sums.log_prod_over_margin, "weight norm", ("folded", *PGD), 1, norm="frobenius"
    ),
    "log_sum_of_spec": entry(log_norm_sums.log_sum, "weight norm", ("folded",), 1, norm="spectral"),
    "log_sum_of_fro": entry(log_norm_sums.log_sum, "weight norm", ("folded",), 1, norm="frobenius"),
    "log_sum_of_spec_over_margin": entry(
        log_norm_sums.log_sum_over_margin, "weight norm", ("folded", *PGD), 1, norm="spectral"
    ),
    "log_sum_of_fro_over_margin": entry(
        log_norm_sums.log_sum_over_margin, "weight norm", ("folded", *PGD), 1, norm="frobenius"
    ),
    "euclid_init_norm": entry(
        distance_from_init.euclid_init_norm,
        "weight norm",
        ("folded", "initial"),
        1,
        weights="folded",
    ),
    "euclid_init_norm_raw": entry(
        distance_from_init.euclid_init_norm, "weight norm", ("weights", "initial"), 1, weights="raw"
    ),
    "dist_spec_init": entry(
        distance_from_init.dist_spec_init, "weight norm", ("folded", "initial"), 1
    ),
    # Margin
    "average_ce": entry(average_ce.average_ce, "margin", PGD, -1, on="adversarial"),
    "average_ce_clean": entry(average_ce.average_ce, "margin", CLEAN, -1, on="clean"),
    "inverse_margin": entry(margins.inverse_margin, "margin", PGD, 1, on="adversarial"),
    "inverse_margin_clean": entry(margins.inverse_margin, "margin", CLEAN, 1, on="clean"),
    "prob_margin": entry(margins.prob_margin, "margin", PGD, 1, on="adversarial"),
    "prob_margin_clean": entry(margins.prob_margin, "margin", CLEAN, 1, on="clean"),
    "margin_p10": entry(margins.margin_percentile, "margin", PGD, -1, on="adversarial", percent=10),
    "margin_p25": entry(margins.margin_percentile, "margin", PGD, -1, on="adversarial", percent=25),
    "margin_p50": entry(margins.margin_percentile, "margin", PGD, -1, on="adversarial", percent=50),
    "margin_p75": entry(margins.margin_percentile, "margin", PGD, -1, on="adversarial", percent=75),
    "margin_p90": entry(margins.margin_percentile, "margin", PGD, -1, on="adversarial", percent=90),
    "margin_p10_clean": entry(
        margins.margin_percentile, "margin", CLEAN, -1, on="clean", percent=10
    ),
    # Smoothness
    "boundary_thickness": entry(
        boundary_thickness.boundary_thickness, "smoothness", CLEAN, -1, stochastic=True
    ),
    "boundary_reach": entry(
        boundary_thickness.boundary_reach, "smoothness", CLEAN, None, stochastic=True
    ),
    "kl_divergence": entry(kl_divergence.kl_divergence, "smoothness", (*CLEAN, *PGD), None),
    "local_lip": entry(
        local_lip.local_lip,
        "smoothness",
        (*CLEAN, "threat"),
        1,
        stochastic=True,
        output="logits",
    ),
    "local_lip_softmax": entry(
        local_lip.local_lip,
        "smoothness",
        (*CLEAN, "threat"),
        1,
        stochastic=True,
        output="probabilities",
    ),
    # Flatness
    "pacbayes_flat": entry(
        pacbayes.pacbayes_flat, "flatness", ("folded", *PGD), 1, stochastic=True, on="adversarial"
    ),
    "pacbayes_flat_clean": entry(
        pacbayes.pacbayes_flat, "flatness", ("folded", *CLEAN), 1, stochastic=True, on="clean"
    ),
    "pacbayes_mag_flat": entry(
        pacbayes.pacbayes_mag_flat,
        "flatness",
        ("folded", *PGD),
        1,
        stochastic=True,
        on="adversarial",
    ),
    "pacbayes_init": entry(
        pacbayes.pacbayes_bound,
        "flatness",
        ("folded", "initial", "train_size", *PGD),
        1,
        stochastic=True,
        from_init=True,
    ),
    "pacbayes_orig": entry(
        pacbayes.pacbayes_bound,
        "flatness",
        ("folded", "train_size", *PGD),
        1,
        stochastic=True,
        from_init=False,
    ),
    "pacbayes_mag_init": entry(
        pacbayes.pacbayes_mag_bound,
        "flatness",
        ("folded", "initial", "train_size", *PGD),
        1,
        stochastic=True,
        from_init=True,
    ),
    "pacbayes_mag_orig": entry(
        pacbayes.pacbayes_mag_bound,
        "flatness",
        ("folded", "train_size", *PGD),
        1,
        stochastic=True,
        from_init=False,
    ),
    "estimated_sharpness": entry(
        estimated_sharpness.estimated_sharpness,
        "flatness",
        (*PGD, "gradients"),
        1,
        on="adversarial",
    ),
    "estimated_sharpness_clean": entry(
        estimated_sharpness.estimated_sharpness, "flatness", (*CLEAN, "gradients"), 1, on="clean"
    ),
    "estimated_inv_sharpness": entry(
        estimated_sharpness.estimated_inv_sharpness,
        "flatness",
        (*PGD, "gradients"),
        1,
        on="adversarial",
    ),
    "estimated_inv_sharpness_clean": entry(
        estimated_sharpness.estimated_inv_sharpness,
        "flatness",
        (*CLEAN, "gradients"),
        1,
        on="clean",
    ),
    "average_flat": entry(
        average_flat.average_flat, "flatness", (*CLEAN, "threat"), 1, stochastic=True
    ),
    # Gradient
    "x_grad_norm": entry(
        gradient_norms.x_grad_norm,
        "gradient",
        (*PGD, "gradients"),
        -1,
        on="adversarial",
        norm="l2",
    ),
    "x_grad_norm_l1": entry(
        gradient_norms.x_grad_norm,
        "gradient",
        (*PGD, "gradients"),
        -1,
        on="adversarial",
        norm="l1",
    ),
    "x_grad_norm_clean": entry(
        gradient_norms.x_grad_norm, "gradient", (*CLEAN, "gradients"), -1, on="clean", norm="l2"
    ),
    "w_grad_norm": entry(
        gradient_norms.w_grad_norm, "gradient", (*PGD, "gradients"), -1, on="adversarial"
    ),
    "w_grad_norm_clean": entry(
        gradient_norms.w_grad_norm, "gradient", (*CLEAN, "gradients"), -1, on="clean"
    ),
}

# The list of Kim et al., NeurIPS 2023.
PAPER: tuple[str, ...] = (
    *("path_norm", "log_prod_of_spec", "log_prod_of_fro", "euclid_init_norm"),
    *("average_ce", "inverse_margin", "prob_margin"),
    *("boundary_thickness", "kl_divergence", "local_lip"),
    *("pacbayes_flat", "estimated_sharpness", "estimated_inv_sharpness", "average_flat"),
    *("x_grad_norm", "w_grad_norm"),
)
# Those beyond the shared adversarial examples cost at most about as much again.
CHEAP: tuple[str, ...] = (
    *("path_norm", "log_prod_of_spec", "log_prod_of_fro", "euclid_init_norm"),
    *("average_ce", "average_ce_clean", "inverse_margin", "margin_p10", "prob_margin"),
    *("kl_divergence", "estimated_sharpness", "estimated_inv_sharpness"),
    *("x_grad_norm", "x_grad_norm_clean", "w_grad_norm"),
)

SETS: dict[str, tuple[str, ...]] = {
    "default": PAPER,
    "paper": PAPER,
    "cheap": CHEAP,
    "all": tuple(MEASURES),
}
