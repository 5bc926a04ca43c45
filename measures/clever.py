"""A robustness radius from extreme values of the gradient."""

from __future__ import annotations

import torch
from scipy.stats import weibull_max
from torch import Tensor

from defenses.attacks.threat import geometry
from measures.engine.context import Context
from measures.engine.measure import Undefined


def clever(context: Context, *, samples: int = 32, maxima: int = 20, examples: int = 16) -> float:
    """Mean of min(g(x)/L, R), g = z_c - z_j for the runner-up j, L the local Lipschitz constant.
    Weng et al., ICLR 2018 (CLEVER).

    L is the location of a reverse Weibull distribution fitted to ``maxima`` maxima of ``samples``
    gradient norms each (dual norm), at points drawn in the ball of radius R; where the fit is
    not plausible, their maximum. R is twice eps. c is the predicted class. Linear: exactly
    g/‖w_c - w_j‖_*, up to R. The authors use 1024 samples and 500 maxima.
    """
    radius = 2 * context.threat.eps
    if radius == 0:
        raise Undefined("eps is 0, so there is no ball to draw from")
    best = context.clean.logits[:examples].topk(2, dim=1)
    distances = []
    for i, image in enumerate(context.images[:examples]):
        norms = gradient_norms(context, image, best.indices[i], radius, maxima * samples, i)
        constant = lipschitz(norms.view(maxima, samples).amax(dim=1))
        gap = float(best.values[i, 0] - best.values[i, 1])
        distances.append(min(gap / constant, radius) if constant > 0 else radius)
    return sum(distances) / len(distances)


def gradient_norms(
    context: Context, image: Tensor, classes: Tensor, radius: float, count: int, counter: int
) -> Tensor:
    """``(count,)``: dual norms of ∇(z_c - z_j) at random points of the image's ball and box."""
    stream = context.generator("clever", counter)
    around = image.cpu().expand(count, *image.shape)
    points = geometry(context.threat.norm).random_start(around, radius, stream)
    order = 1 if context.threat.norm == "linf" else 2
    found = []
    for (x,) in context.batches(points.to(context.device)):
        x.requires_grad_(True)
        z = context.model(x)[:, classes]
        (gradient,) = torch.autograd.grad((z[:, 0] - z[:, 1]).sum(), x)
        found.append(gradient.flatten(1).norm(p=order, dim=1))
    return torch.cat(found)


def lipschitz(maxima: Tensor) -> float:
    """The upper end of the distribution that the maxima come from."""
    values = maxima.double().cpu().numpy()
    top, spread = float(values.max()), float(values.std())
    if spread <= 1e-6 * top:
        return top  # all maxima agree: the gradient is constant
    _, location, _ = weibull_max.fit(values, 2.0, loc=top + spread, scale=spread)
    plausible = top <= location <= top + 10 * spread
    return float(location) if plausible else top
