"""Named lists of measures: sets to choose, and those whose values are noisy."""

from __future__ import annotations

from measures.registry import MEASURES

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

# τ between two seeds under 0.9 at default sizes, over the demo's models: docs/reliability.md.
NOISY: frozenset[str] = frozenset(
    {
        "boundary_reach",
        "clever",
        "pacbayes_flat",
        "pacbayes_mag_flat",
        "pacbayes_init",
        "pacbayes_orig",
        "pacbayes_mag_init",
        "pacbayes_mag_orig",
        "worst_case_flat",
        "hessian_trace",
        "weight_curvature",
        "gradient_cosine",
        "ece",
        "effective_dimension",
    }
)
