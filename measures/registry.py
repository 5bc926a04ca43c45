"""Every measure by name: an explicit list, so that a name leads to its file with one search."""

from __future__ import annotations

from measures import (
    adaptive_sharpness,
    average_ce,
    average_flat,
    awp_loss_gap,
    boundary_thickness,
    clever,
    controls,
    distance_from_init,
    estimated_sharpness,
    fisher_rao,
    gradient_norms,
    gradient_variance,
    hessian_spectrum,
    input_curvature,
    jacobian_norm,
    kl_divergence,
    local_lip,
    log_norm_sums,
    margins,
    minimal_distance,
    pacbayes,
    path_norm,
    path_norm_l1,
    relative_flatness,
    spectral_bounds,
    weight_totals,
    worst_case_flat,
)
from measures.engine.entry import Inferred, entry
from measures.engine.measure import Measure, Need

# What a measure looks at, in the words of its ``on``.
PGD: tuple[Need, ...] = ("adversarial",)
CLEAN: tuple[Need, ...] = ("clean",)
MEASURES: dict[str, Measure] = {
    # Weight norm
    "path_norm": entry(path_norm.path_norm, "weight norm", ("folded",), 1),
    "path_norm_over_margin": entry(
        path_norm.path_norm_over_margin, "weight norm", ("folded", *PGD), 1
    ),
    "path_norm_l1": entry(path_norm_l1.path_norm_l1, "weight norm", ("folded",), 1),
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
    "param_norm": entry(weight_totals.param_norm, "weight norm", ("folded",), 1),
    "params": entry(weight_totals.params, "weight norm", ("weights",), 1),
    "fro_over_spec": entry(weight_totals.fro_over_spec, "weight norm", ("folded",), 1),
    "log_spec_init_main": entry(
        spectral_bounds.log_spec_init_main, "weight norm", ("folded", "initial", *PGD), 1
    ),
    "log_spec_orig_main": entry(
        spectral_bounds.log_spec_orig_main, "weight norm", ("folded", *PGD), 1
    ),
    # Margin
    "average_ce": entry(average_ce.average_ce, "margin", PGD, Inferred(-1), on="adversarial"),
    "average_ce_clean": entry(average_ce.average_ce, "margin", CLEAN, Inferred(-1), on="clean"),
    "inverse_margin": entry(margins.inverse_margin, "margin", PGD, 1, on="adversarial"),
    "inverse_margin_clean": entry(margins.inverse_margin, "margin", CLEAN, 1, on="clean"),
    "prob_margin": entry(margins.prob_margin, "margin", PGD, Inferred(1), on="adversarial"),
    "prob_margin_clean": entry(margins.prob_margin, "margin", CLEAN, Inferred(1), on="clean"),
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
    "cure_curvature": entry(
        input_curvature.cure_curvature, "smoothness", (*CLEAN, "gradients", "threat"), Inferred(1)
    ),
    "local_linearity": entry(
        input_curvature.local_linearity,
        "smoothness",
        (*CLEAN, "gradients", "threat"),
        Inferred(1),
        stochastic=True,
    ),
    "grad_align": entry(
        input_curvature.grad_align,
        "smoothness",
        (*CLEAN, "gradients", "threat"),
        Inferred(1),
        stochastic=True,
    ),
    "jacobian_norm": entry(jacobian_norm.jacobian_norm, "smoothness", CLEAN, 1, stochastic=True),
    "clever": entry(clever.clever, "smoothness", (*CLEAN, "threat"), Inferred(-1), stochastic=True),
    "minimal_distance": entry(
        minimal_distance.minimal_distance, "smoothness", (*CLEAN, "threat"), None
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
    "adaptive_sharpness": entry(
        adaptive_sharpness.adaptive_sharpness,
        "flatness",
        PGD,
        Inferred(1),
        on="adversarial",
        normalised=False,
    ),
    "adaptive_sharpness_clean": entry(
        adaptive_sharpness.adaptive_sharpness,
        "flatness",
        CLEAN,
        Inferred(1),
        on="clean",
        normalised=False,
    ),
    "adaptive_sharpness_normalised": entry(
        adaptive_sharpness.adaptive_sharpness,
        "flatness",
        PGD,
        Inferred(1),
        on="adversarial",
        normalised=True,
    ),
    "average_adaptive_sharpness": entry(
        adaptive_sharpness.average_adaptive_sharpness,
        "flatness",
        PGD,
        Inferred(1),
        stochastic=True,
        on="adversarial",
    ),
    "average_adaptive_sharpness_clean": entry(
        adaptive_sharpness.average_adaptive_sharpness,
        "flatness",
        CLEAN,
        Inferred(1),
        stochastic=True,
        on="clean",
    ),
    "awp_loss_gap": entry(
        awp_loss_gap.awp_loss_gap, "flatness", (*PGD, "gradients"), 1, on="adversarial"
    ),
    "awp_loss_gap_clean": entry(
        awp_loss_gap.awp_loss_gap, "flatness", (*CLEAN, "gradients"), 1, on="clean"
    ),
    "worst_case_flat": entry(
        worst_case_flat.worst_case_flat, "flatness", (*CLEAN, "threat"), 1, stochastic=True
    ),
    "hessian_trace": entry(
        hessian_spectrum.hessian_trace,
        "flatness",
        PGD,
        Inferred(1),
        stochastic=True,
        on="adversarial",
    ),
    "hessian_trace_clean": entry(
        hessian_spectrum.hessian_trace, "flatness", CLEAN, Inferred(1), stochastic=True, on="clean"
    ),
    "hessian_top": entry(
        hessian_spectrum.hessian_top,
        "flatness",
        PGD,
        Inferred(1),
        stochastic=True,
        on="adversarial",
    ),
    "effective_dimension": entry(
        hessian_spectrum.effective_dimension, "flatness", PGD, 1, stochastic=True, on="adversarial"
    ),
    "weight_curvature": entry(
        hessian_spectrum.weight_curvature, "flatness", PGD, 1, stochastic=True, on="adversarial"
    ),
    "last_layer_trace": entry(
        relative_flatness.last_layer_trace, "flatness", PGD, Inferred(1), on="adversarial"
    ),
    "relative_flatness": entry(
        relative_flatness.relative_flatness, "flatness", PGD, 1, on="adversarial"
    ),
    "relative_flatness_clean": entry(
        relative_flatness.relative_flatness, "flatness", CLEAN, 1, on="clean"
    ),
    "fisher_rao": entry(fisher_rao.fisher_rao, "flatness", PGD, 1, on="adversarial"),
    "fisher_rao_clean": entry(fisher_rao.fisher_rao, "flatness", CLEAN, 1, on="clean"),
    # Gradient
    "x_grad_norm": entry(
        gradient_norms.x_grad_norm,
        "gradient",
        (*PGD, "gradients"),
        Inferred(-1),
        on="adversarial",
        norm="l2",
    ),
    "x_grad_norm_l1": entry(
        gradient_norms.x_grad_norm,
        "gradient",
        (*PGD, "gradients"),
        Inferred(-1),
        on="adversarial",
        norm="l1",
    ),
    "x_grad_norm_clean": entry(
        gradient_norms.x_grad_norm,
        "gradient",
        (*CLEAN, "gradients"),
        Inferred(-1),
        on="clean",
        norm="l2",
    ),
    "w_grad_norm": entry(
        gradient_norms.w_grad_norm, "gradient", (*PGD, "gradients"), Inferred(-1), on="adversarial"
    ),
    "w_grad_norm_clean": entry(
        gradient_norms.w_grad_norm, "gradient", (*CLEAN, "gradients"), Inferred(-1), on="clean"
    ),
    "gradient_variance": entry(
        gradient_variance.gradient_variance, "gradient", PGD, None, on="adversarial"
    ),
    "gradient_variance_clean": entry(
        gradient_variance.gradient_variance, "gradient", CLEAN, None, on="clean"
    ),
    "gradient_cosine": entry(
        gradient_variance.gradient_cosine, "gradient", PGD, None, on="adversarial"
    ),
    "gradient_cosine_clean": entry(
        gradient_variance.gradient_cosine, "gradient", CLEAN, None, on="clean"
    ),
    # Control
    "train_accuracy": entry(controls.train_accuracy, "control", PGD, None, on="adversarial"),
    "train_accuracy_clean": entry(controls.train_accuracy, "control", CLEAN, None, on="clean"),
    "entropy": entry(controls.entropy, "control", PGD, None, on="adversarial"),
    "entropy_clean": entry(controls.entropy, "control", CLEAN, None, on="clean"),
    "logit_norm": entry(controls.logit_norm, "control", PGD, None, on="adversarial"),
    "logit_norm_clean": entry(controls.logit_norm, "control", CLEAN, None, on="clean"),
    "ece": entry(controls.ece, "control", PGD, None, on="adversarial"),
    "ece_clean": entry(controls.ece, "control", CLEAN, None, on="clean"),
}
