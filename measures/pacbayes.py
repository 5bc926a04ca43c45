"""Flatness as the weight noise that accuracy survives, and the PAC-Bayes bounds built on it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from measures.engine.context import Context, On, trainable
from measures.engine.measure import Estimate, Undefined
from measures.engine.noise_scale import largest_scale
from measures.engine.weight_noise import FlatWeights

ACCURACY_DROP = 0.1
LARGEST_SCALE = 2.0
KEPT_NUMBERS = 2**28  # 1 GiB
MAGNITUDE_EPS = 1e-3  # keeps the noise on weights near zero from vanishing


def pacbayes_flat(
    context: Context, *, on: On, draws: int = 30, examples: int = 256, search_steps: int = 8
) -> Estimate:
    """1/σ², σ the largest std of weight noise at which mean accuracy falls by at most 0.1.
    Dziugaite et al., NeurIPS 2020, eq. 53; linear, two rows: error Φ(-m/(σ√2‖x‖)).

    Noise on every parameter of the folded network, accuracy on fixed examples (not attacked
    anew), the same draws at every σ. The public code passes σ² where a std belongs. Undefined
    for accuracy below 0.1, and where noise of 2 is survived.
    """
    return inverse_square(*noise_scale(context, on, False, draws, examples, search_steps))


def pacbayes_mag_flat(
    context: Context, *, on: On, draws: int = 30, examples: int = 256, search_steps: int = 8
) -> Estimate:
    """1/σ'², where each weight's noise has std √(σ'²w² + ε²), ε = 0.001.
    Dziugaite et al., NeurIPS 2020, eq. 61. Nearly unchanged by rescaling ReLU layers.
    """
    return inverse_square(*noise_scale(context, on, True, draws, examples, search_steps))


def pacbayes_bound(
    context: Context,
    *,
    from_init: bool,
    draws: int = 30,
    examples: int = 256,
    search_steps: int = 8,
) -> Estimate:
    """‖v‖²/(4σ²) + log(m/σ) + 10, v = w or w - w⁰, m the number of training images.
    Dziugaite et al., NeurIPS 2020, eq. 48 (w - w⁰) and 49 (w); σ as in ``pacbayes_flat``.
    """
    log_scale, error = noise_scale(context, "adversarial", False, draws, examples, search_steps)
    square = float(displacement(context, from_init).double().pow(2).sum())
    m = train_size(context)
    return propagated(
        lambda s: square / (4 * math.exp(2 * s)) + math.log(m) - s + 10, log_scale, error
    )


def pacbayes_mag_bound(
    context: Context,
    *,
    from_init: bool,
    draws: int = 30,
    examples: int = 256,
    search_steps: int = 8,
) -> Estimate:
    """¼ Σ_i log[(ε² + (σ'²+1)‖v‖²/ω) / (ε² + σ'²v_i²)] + log(m/σ') + 10, ω = number of weights.
    Dziugaite et al., NeurIPS 2020, eq. 56 (v = w - w⁰) and 57 (v = w); σ' as in
    ``pacbayes_mag_flat``.
    """
    log_scale, error = noise_scale(context, "adversarial", True, draws, examples, search_steps)
    squares = displacement(context, from_init).double().pow(2)
    m = train_size(context)

    def bound(s: float) -> float:
        variance = math.exp(2 * s)
        above = MAGNITUDE_EPS**2 + (variance + 1) * squares.mean()
        below = MAGNITUDE_EPS**2 + variance * squares
        return float((above / below).log().sum()) / 4 + math.log(m) - s + 10

    return propagated(bound, log_scale, error)


def noise_scale(
    context: Context, on: On, by_magnitude: bool, draws: int, examples: int, search_steps: int
) -> tuple[float, float]:
    """(log σ, its standard error), shared by the measures made of it."""
    key = ("pacbayes", on, by_magnitude, draws, examples, search_steps)
    return context.once(
        key, lambda: search(context, on, by_magnitude, draws, examples, search_steps)
    )


def search(
    context: Context, on: On, by_magnitude: bool, draws: int, examples: int, search_steps: int
) -> tuple[float, float]:
    data = context.on(on)
    images, labels = data.images[:examples], data.labels[:examples]
    weights = FlatWeights(context.folded.model, trainable(context.folded.model))
    noises = Noises(context, weights, draws)

    def accuracies(scale: float) -> Tensor:
        std: Tensor | float = scale
        if by_magnitude:
            std = (scale**2 * weights.vector**2 + MAGNITUDE_EPS**2).sqrt()
        return torch.stack([accuracy(weights.moved(std * noises[d])) for d in range(draws)])

    def accuracy(model: nn.Module) -> Tensor:
        return (context.logits(model, images).argmax(dim=1) == labels).double().mean()

    clean = float((data.logits[:examples].argmax(dim=1) == labels).double().mean())
    return largest_scale(
        accuracies, clean, drop=ACCURACY_DROP, largest=LARGEST_SCALE, steps=search_steps
    )


class Noises:
    """The draws of weight noise: kept where there is room, else drawn again at each use."""

    def __init__(self, context: Context, weights: FlatWeights, draws: int) -> None:
        self.context = context
        self.weights = weights
        self.kept: list[Tensor] = []
        if draws * len(weights) <= KEPT_NUMBERS:
            self.kept = [self._draw(draw) for draw in range(draws)]

    def __getitem__(self, draw: int) -> Tensor:
        return self.kept[draw] if self.kept else self._draw(draw)

    def _draw(self, draw: int) -> Tensor:
        return self.weights.noise(self.context.generator("pacbayes noise", draw))


def displacement(context: Context, from_init: bool) -> Tensor:
    """w or w - w⁰: all parameters of the folded network as one vector."""
    now = context.folded.model
    vector = FlatWeights(now, trainable(now)).vector
    if not from_init:
        return vector
    then = context.folded_initial.model
    return vector - FlatWeights(then, trainable(then)).vector


def train_size(context: Context) -> int:
    if context.train_size is None:
        raise Undefined("the number of training images is not known")
    return context.train_size


def inverse_square(log_scale: float, error: float) -> Estimate:
    return propagated(lambda s: math.exp(-2 * s), log_scale, error)


def propagated(function: Callable[[float], float], log_scale: float, error: float) -> Estimate:
    """function(log σ), with the error that follows from that of log σ (delta method)."""
    h = 1e-4
    slope = (function(log_scale + h) - function(log_scale - h)) / (2 * h)
    return Estimate(function(log_scale), abs(slope) * error)
