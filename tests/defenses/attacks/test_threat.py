"""The projections and starts, against brute force and their definitions."""

from __future__ import annotations

import pytest
import torch

from defenses.attacks.threat import L2, Linf, geometry, lengths
from defenses.randomness import generator


def test_l2_projection_is_the_nearest_point_of_the_ball() -> None:
    """No random point of the ball is nearer (away from the box, where only the ball binds)."""
    stream = generator("tests", "projection")
    x = torch.full((1, 1, 1, 3), 0.5)
    outside = x + 0.3 * torch.randn(1, 1, 1, 3, generator=stream)
    nearest = L2.project(outside, x, 0.1)
    candidates = L2.random_start(x.expand(5000, -1, -1, -1), 0.1, stream)
    assert (lengths(candidates - outside) >= lengths(nearest - outside) - 1e-6).all()
    torch.testing.assert_close(lengths(nearest - x).item(), 0.1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_inside_stay_where_they_are(norm: str) -> None:
    x = torch.full((4, 1, 2, 2), 0.5)
    inside = x + 0.01
    assert torch.equal(geometry(norm).project(inside, x, 0.2), inside)


def test_linf_start_fills_the_ball_evenly() -> None:
    x = torch.full((2000, 1, 2, 2), 0.5)
    delta = (Linf.random_start(x, 0.2, generator("tests", "start")) - x) / 0.2
    assert delta.abs().max() <= 1
    assert delta.mean().abs() < 0.03
    assert (delta.square().mean() - 1 / 3).abs() < 0.02


def test_l2_start_has_an_even_length_in_every_direction() -> None:
    x = torch.full((4000, 1, 2, 2), 0.5)
    delta = L2.random_start(x, 0.2, generator("tests", "start")) - x
    length = lengths(delta).flatten() / 0.2
    assert length.max() <= 1 + 1e-5
    assert (length.mean() - 0.5).abs() < 0.02
    assert (delta.mean(dim=0).abs() < 0.01).all()


def test_l2_ascent_ignores_the_size_of_the_gradient() -> None:
    x = torch.zeros(3, 1, 2, 2)
    gradient = torch.rand(3, 1, 2, 2, generator=generator("tests", "gradient"))
    gradient[2] = 0
    far = L2.ascend(x, 1e-20 * gradient, 0.5)
    torch.testing.assert_close(far, L2.ascend(x, gradient, 0.5))
    torch.testing.assert_close(lengths(far).flatten(), torch.tensor([0.5, 0.5, 0.0]))
