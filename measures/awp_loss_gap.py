"""The loss gained by the weight perturbation of adversarial training with AWP."""

from __future__ import annotations

from measures.engine.context import Context, On
from measures.engine.measure import Undefined
from measures.engine.weight_noise import FlatWeights, linear_weight_names, mean_loss


def awp_loss_gap(context: Context, *, on: On, gamma: float = 0.01) -> float:
    """L(w + ν) - L(w) for one ascent step with ‖ν_l‖ = γ‖w_l‖ in every layer, L the mean CE.
    Wu, Xia & Wang, NeurIPS 2020 (AWP), layer-wise as in the authors' code.

    Weights of convolutions and linear layers only; the examples stay as they are.
    """
    data = context.on(on)
    weights = FlatWeights(context.model, linear_weight_names(context.model))
    gradient = weights.flat(data.weight_gradient)
    lengths = weights.layer_norms(gradient)
    if not lengths.all():
        raise Undefined("the gradient of a layer's weights is zero, so it has no direction")
    step = gradient * weights.per_layer(gamma * weights.layer_norms(weights.vector) / lengths)
    loss = mean_loss(context, weights.moved(step), data.images, data.labels)
    return loss - float(data.cross_entropy.double().mean())
