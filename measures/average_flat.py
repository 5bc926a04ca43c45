"""Average-case flatness of the robust loss: random weight noise, attacked anew."""

from __future__ import annotations

import torch

from measures.engine.context import Context
from measures.engine.estimate import over_draws
from measures.engine.measure import Estimate
from measures.engine.weight_noise import FlatWeights, linear_weight_names, mean_loss


def average_flat(
    context: Context,
    *,
    radius: float = 0.5,
    pairs: int = 10,
    examples: int = 128,
    attack_steps: int = 10,
) -> Estimate:
    """E_ν max_δ L(x+δ; w+ν) - max_δ L(x+δ; w), ν uniform on spheres ‖ν_l‖ = ξ‖w_l‖ per layer.
    Stutz, Hein & Schiele, ICCV 2021; linear regression loss: ½ξ²‖w‖²E‖x‖²/d.

    The attack is run again after the noise, as theirs. Weights and biases of convolutions and
    linear layers count as a layer each; batch-norm is not perturbed. Draws come in pairs ±ν (the
    authors: 10 independent ones), which cancels the slope of the loss.
    """
    images, labels = context.images[:examples], context.labels[:examples]
    weights = FlatWeights(context.model, linear_weight_names(context.model, biases=True))
    radii = radius * weights.layer_norms(weights.vector)

    def robust_loss(step: torch.Tensor, counter: int) -> float:
        model = weights.moved(step)
        attacked = context.attack(
            model, images, labels, purpose="average_flat", counter=counter, steps=attack_steps
        )
        return mean_loss(context, model, attacked, labels)

    reference = robust_loss(torch.zeros_like(weights.vector), pairs)
    gains = []
    for pair in range(pairs):
        noise = weights.noise(context.generator("average_flat noise", pair))
        on_sphere = noise * weights.per_layer(radii / weights.layer_norms(noise))
        losses = [robust_loss(step, pair) for step in (on_sphere, -on_sphere)]
        gains.append(sum(losses) / 2 - reference)
    return over_draws(torch.tensor(gains))
