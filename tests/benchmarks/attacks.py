"""PGD-10 and AutoAttack against torchattacks: the same model, images and effort, in one run.

    python tests/benchmarks/attacks.py [--images 128] [--device cuda]

Prints seconds, the ratio (theirs / ours: above 1 means that this project is faster) and both
robust accuracies. torchattacks' AutoAttack makes 10 steps of APGD and FAB unless it is told
otherwise; it is compared at the published 100, which is what ``autoattack`` does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchattacks
from sklearn.datasets import load_digits
from torch import Tensor, nn

from defenses.architectures import build
from defenses.attacks import pgd
from defenses.attacks.autoattack import Effort, autoattack

EPS = 24 / 255


def trained(device: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A WRN-10-1 after a few epochs of adversarial training on digits of CIFAR's size."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    x = F.interpolate(x, size=32, mode="bilinear").repeat(1, 3, 1, 1).clamp(0, 1).to(device)
    y = torch.tensor(data.target, device=device)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    model = build("wrn10_1", num_classes=10).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    stream = torch.Generator(device=device).manual_seed(0)
    for _ in range(3):
        for rows in torch.arange(1300).split(64):
            x_adv = pgd(
                model, x[rows], y[rows], eps=EPS, step_size=EPS / 2, steps=3, generator=stream
            )
            optimizer.zero_grad()
            F.cross_entropy(model(x_adv), y[rows]).backward()
            optimizer.step()
    return model.eval(), x[1300:], y[1300:]


def compare(
    calls: tuple[Callable[[], Tensor], Callable[[], Tensor]], device: str, repeats: int
) -> tuple[list[float], list[Tensor]]:
    """Median duration of each call, taken in turns, and what each returned last.

    On the CPU it is processor time, which other programs on the machine disturb least.
    """
    clock = time.process_time if device == "cpu" else time.perf_counter
    durations: list[list[float]] = [[], []]
    results: list[Tensor] = [torch.empty(0), torch.empty(0)]
    for _ in range(repeats):
        for side, call in enumerate(calls):
            started = clock()
            results[side] = call()
            if device != "cpu":
                torch.cuda.synchronize()
            durations[side].append(clock() - started)
    return [statistics.median(d) for d in durations], results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--queries", type=int, default=5000)
    options = parser.parse_args()
    model, x, y = trained(options.device)
    x, y = x[: options.images], y[: options.images]
    effort = Effort(steps=options.steps, queries=options.queries)
    stream = torch.Generator(device=options.device).manual_seed(0)
    common = {"norm": "Linf", "eps": EPS, "seed": 0}
    theirs = torchattacks.MultiAttack(
        [
            torchattacks.APGD(model, steps=effort.steps, **common),
            torchattacks.APGDT(model, steps=effort.steps, n_classes=10, **common),
            torchattacks.FAB(
                model, steps=effort.steps, multi_targeted=True, n_classes=10, **common
            ),
            torchattacks.Square(model, n_queries=effort.queries, resc_schedule=False, **common),
        ]
    )
    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "PGD-10": (
            lambda: pgd(model, x, y, eps=EPS, step_size=EPS / 4, steps=10, generator=stream),
            lambda: torchattacks.PGD(model, eps=EPS, alpha=EPS / 4, steps=10)(x, y),
        ),
        "AutoAttack": (
            lambda: autoattack(model, x, y, eps=EPS, effort=effort),
            lambda: theirs(x, y),
        ),
    }
    for name, calls in pairs.items():
        repeats = 15 if name == "PGD-10" else 1
        (our_time, their_time), images = compare(calls, options.device, repeats)
        with torch.no_grad():
            accuracies = [
                round(100 * float((model(z).argmax(dim=1) == y).double().mean()), 2) for z in images
            ]
        print(
            json.dumps(
                {
                    "attack": name,
                    "device": options.device,
                    "images": len(x),
                    "seconds": round(our_time, 3),
                    "torchattacks_seconds": round(their_time, 3),
                    "ratio": round(their_time / our_time, 2),
                    "robust_accuracy": accuracies[0],
                    "torchattacks_robust_accuracy": accuracies[1],
                }
            )
        )


if __name__ == "__main__":
    main()
