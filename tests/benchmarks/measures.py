"""Measures: passes of the whole set at the paper's size, and the set together against alone.

python -m tests.benchmarks.measures
"""

from __future__ import annotations

import time

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import measures
from defenses.architectures import build
from defenses.spec import Threat

LIMIT_FACTOR = 3
TOGETHER_IMAGES = 1500
LIMIT_SHARE = 0.05
IMAGES = 5000  # measured on, of CIFAR-10
# study=paper: 672 trainings of 200 epochs of 50,000 images, 1,344 models. A training image costs
# one forward and backward pass for each attack step, and one for the update.
STEPS_OF_TRAININGS = {0: 96, 1: 288, 10: 288}
TRAINING_PASSES = sum(n * 200 * 50_000 * (steps + 1) for steps, n in STEPS_OF_TRAININGS.items())
MODELS = 1344
BACKWARD = 2  # a backward pass costs about two forward passes


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    return torch.tensor(data.images[:600, None] / 16).float(), torch.tensor(data.target[:600])


def trained(name: str, images: Tensor, labels: Tensor) -> tuple[nn.Module, dict[str, Tensor]]:
    """A few epochs under noise, so that no measure is undefined for want of accuracy."""
    model = build(name, num_classes=10, in_channels=1, image_size=8)
    initial = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    stream = torch.Generator().manual_seed(0)
    for _ in range(6):
        for batch in torch.randperm(len(labels), generator=stream).split(64):
            noise = 0.2 * (torch.rand(images[batch].shape, generator=stream) - 0.5)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images[batch] + noise), labels[batch])
            loss.backward()
            optimizer.step()
    return model, initial


def passes() -> None:
    """Counted on a small network: the number of passes does not depend on the network's size."""
    images, labels = digits()
    model, initial = trained("resnet_small", images, labels)
    repeats = -(-IMAGES // len(labels))
    many, their_labels = images.repeat(repeats, 1, 1, 1)[:IMAGES], labels.repeat(repeats)[:IMAGES]
    costs = measures.cost(
        model,
        many,
        their_labels,
        names=["all"],
        initial_state=initial,
        train_size=50_000,
        threat=Threat(eps=0.1, step_size=0.025),
        batch_size=500,
    )
    print(f"All measures of one model on {IMAGES:,} images, in images through the network")
    print(costs)
    in_forward_passes = costs.forward + BACKWARD * costs.backward
    share = MODELS * in_forward_passes / ((1 + BACKWARD) * TRAINING_PASSES)
    print(f"\nOver study=paper: {share:.2%} of the passes of its training")
    assert share < LIMIT_SHARE


def sharing() -> None:
    """The set in one call, against one call for each measure."""
    images, labels = digits()
    model, initial = trained("resnet_small", images, labels)
    repeats = -(-TOGETHER_IMAGES // len(labels))
    images = images.repeat(repeats, 1, 1, 1)[:TOGETHER_IMAGES]
    labels = labels.repeat(repeats)[:TOGETHER_IMAGES]

    def run(names: list[str]) -> float:
        start = time.perf_counter()
        measures.compute(
            model,
            images,
            labels,
            names=names,
            initial_state=initial,
            train_size=600,
            threat=Threat(eps=0.1, step_size=0.025),
        )
        return time.perf_counter() - start

    print(f"\nTogether against each alone, resnet_small on {TOGETHER_IMAGES:,} images, in seconds")
    for name in ("cheap", "all"):
        run([name])  # first use of code paths
        together = run([name])
        alone = sum(run([member]) for member in measures.SETS[name])
        print(f"{name:8}{together:8.2f}{alone:8.2f}{alone / together:8.1f} times")
        if name == "all":
            assert alone > LIMIT_FACTOR * together


def main() -> None:
    torch.set_num_threads(1)
    passes()
    sharing()


if __name__ == "__main__":
    main()
