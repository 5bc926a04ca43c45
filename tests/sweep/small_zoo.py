"""Two models of RobustBench's zoo on a few images: its networks and file layout, weights made here.

Needs the package ``robustbench``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from sweep import zoo
from sweep.zoo import ZooModel

LABELS = ("cifar10/Linf/Wong2020Fast", "cifar10/L2/Sehwag2021Proxy_R18")


def images() -> tuple[np.ndarray, np.ndarray]:
    """80 images of CIFAR's size whose brightness is their class."""
    labels = np.arange(80) % 10
    noise = np.random.default_rng(0).integers(0, 20, (80, 32, 32, 3))
    return (noise + 23 * labels[:, None, None, None]).astype(np.uint8), labels


def fitted(label: str) -> nn.Module:
    """The zoo's own network, its last layer fitted to the images by least squares."""
    network = zoo._entry(ZooModel.parse(label))["model"]().eval()
    pixels, labels = images()
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.no_grad():
        network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
        hook.remove()
        features = torch.cat([seen[0], torch.ones(len(labels), 1)], dim=1)
        target = nn.functional.one_hot(torch.from_numpy(labels)).float()
        solution = torch.linalg.lstsq(features, target, driver="gelsd").solution
        last.weight.copy_(solution[:-1].T)
        last.bias.copy_(solution[-1])
    return network


def write_images(path: Path) -> None:
    pixels, labels = images()
    np.savez(path, x_train=pixels[:40], y_train=labels[:40], x_test=pixels[40:], y_test=labels[40:])


def write_weights(folder: Path) -> list[Path]:
    """The weights of both models under ``folder``, as the zoo's downloads lie there."""
    written = []
    for label in LABELS:
        (path,) = zoo.files(ZooModel.parse(label), folder)
        path.parent.mkdir(parents=True)
        state = {f"module.{k}": v for k, v in fitted(label).state_dict().items()}
        torch.save({"state_dict": state, "epoch": 1}, path)
        written.append(path)
    return written


def study(images_path: Path, results: Path) -> tuple[str, ...]:
    """The overrides of a study of the two."""
    return (
        "study=robustbench", f"imported={','.join(LABELS)}", f"results_dir={results}",
        "dataset.name=npz", f"dataset.path={images_path}", "dataset.selection_size=20",
        "dataset.train_size=10", "dataset.test_size=10", "evaluation.masking_images=0",
        "evaluation.steps=1", "tracking=none", "device=cpu",
        "measures=[prob_margin_clean,average_ce_clean,entropy_clean,param_norm,euclid_init_norm]",
    )  # fmt: skip
