"""Standard errors are honest: over many seeds, ± 2 of them hold the long-run mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from measures import MEASURES, Context, Estimate

MakeContext = Callable[..., Context]
SEEDS = 200

SMALL: dict[str, dict[str, float]] = {
    "boundary_thickness": {"attack_steps": 3, "points": 16},
    "boundary_reach": {"attack_steps": 5, "attack_eps": 0.05, "points": 16},
    "local_lip": {"steps": 2},
    "local_lip_softmax": {"steps": 2},
    "local_linearity": {"steps": 2},
    "grad_align": {},
    "jacobian_norm": {},
    "pacbayes_flat": {"search_steps": 6, "draws": 16},
    "pacbayes_mag_flat": {"search_steps": 6, "draws": 16},
    "average_flat": {"pairs": 5, "attack_steps": 1},
    "average_adaptive_sharpness": {},
    "hessian_trace": {"probes": 10},
    "weight_curvature": {"probes": 20},
    "effective_dimension": {"steps": 4, "prior": 0.1, "probes": 6, "examples": 16},
}


def test_the_list_is_complete() -> None:
    """Every measure that gives a standard error is here, up to variants of the same draws."""
    same_draws = {"pacbayes_init", "pacbayes_orig", "pacbayes_mag_init", "pacbayes_mag_orig"}
    without = {"clever", "worst_case_flat", "hessian_top"}  # one draw: no standard error
    stochastic = {n for n, m in MEASURES.items() if m.stochastic and not n.endswith("_clean")}
    assert stochastic - same_draws - without == set(SMALL)


@pytest.fixture
def learnable(images: Tensor) -> Tensor:
    """Labels: which of the first three pixels is brightest."""
    return images[:, :3].argmax(dim=1)


@pytest.fixture
def trained(images: Tensor, learnable: Tensor) -> nn.Sequential:
    """A small network that is right on most images, as measured models are."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 3))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), learnable).backward()
            optimizer.step()
    assert (net(images).argmax(dim=1) == learnable).double().mean() > 0.8
    return net


@pytest.mark.parametrize("name", SMALL)
def test_two_standard_errors_hold_the_mean(
    name: str, trained: nn.Sequential, learnable: Tensor, context: MakeContext
) -> None:
    entry = MEASURES[name]
    # On the clean images, which do not change with the seed: the error is that given the images.
    variant = {**entry.variant, **({"on": "clean"} if "on" in entry.variant else {})}
    shared = context(trained, y=learnable)
    found = []
    for seed in range(SEEDS):
        measured = context(trained, y=learnable, seed=seed)
        measured.__dict__["clean"] = shared.clean
        estimate = entry.function(measured, **variant, **SMALL[name])
        assert isinstance(estimate, Estimate)
        found.append(estimate)
    values = torch.tensor([e.value for e in found], dtype=torch.float64)
    errors = torch.tensor([e.se for e in found], dtype=torch.float64)
    assert (errors >= 0).all()
    assert values.std() > 0
    covered = ((values - values.mean()).abs() <= 2 * errors).double().mean()
    # 95.4 % is meant; binomial scatter over 200 seeds is 1.5 %, skewed draws cost a few more.
    assert 0.90 <= float(covered) <= 1.0, f"{float(covered):.3f} covered"
    # And the error is no larger than need be.
    ratio = float(errors.median() / values.std())
    assert 0.6 < ratio < 1.5, f"standard errors are {ratio:.2f} times the scatter"
