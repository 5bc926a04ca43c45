"""From a specification to a network: with its initial weights, or with stored ones."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from defenses.architectures import Normalisation, build
from defenses.datasets import Data
from defenses.randomness import generator
from defenses.spec import TrainingSpec


class InputShape(NamedTuple):
    """What a network must know of its data. ``normalisation``: mean and std of each channel."""

    num_classes: int
    in_channels: int
    image_size: int
    normalisation: Normalisation


def input_shape(data: Data) -> InputShape:
    return InputShape(data.num_classes, data.in_channels, data.image_size, data.normalisation)


def initial_model(spec: TrainingSpec, data: Data, training_id: str) -> nn.Module:
    """The network before training, on the CPU: the same weights for the same training anywhere."""
    shape = input_shape(data)
    weights = generator(training_id, "initial weights")
    return build(spec.architecture, **shape._asdict(), generator=weights)


def load_model(
    spec: TrainingSpec, data: Data | InputShape, weights: Path, device: torch.device | str
) -> nn.Module:
    """The network of ``spec`` with the weights of a ``.safetensors`` file, in eval mode.

    ``data`` is the data set, or what of it the network depends on. ``RuntimeError`` if the file
    is of another network.
    """
    shape = input_shape(data) if isinstance(data, Data) else InputShape(*data)
    model = build(spec.architecture, **shape._asdict())
    model.load_state_dict(load_file(weights))
    return model.to(device).eval()
