"""The figure of an attack on one picture, and the adversarial picture itself, as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from defenses.files import atomic_file
from sweep.picture import Attacked


def save(result: Attacked, directory: Path) -> list[Path]:
    """Write figure.png, adversarial.npy (exact) and adversarial.png (the nearest 8-bit image).

    Rounding to 8 bits can leave the ball by half a grey level and can undo an attack with a
    small eps: hence both.
    """
    paths = [directory / name for name in ("figure.png", "adversarial.npy", "adversarial.png")]
    with atomic_file(paths[0]) as file:
        figure(result).savefig(file, format="png", dpi=150)
    with atomic_file(paths[1]) as file:
        np.save(file, result.adversarial[0].cpu().numpy())
    with atomic_file(paths[2]) as file:
        Image.fromarray(_pixels(result.adversarial)).save(file, format="png")
    return paths


def figure(result: Attacked) -> Figure:
    """Original, magnified perturbation and adversarial picture above the loss curves."""
    canvas = Figure(figsize=(10, 6.2), layout="constrained")
    grid = canvas.add_gridspec(2, 3, height_ratios=(2, 1))
    delta = result.adversarial - result.original
    largest = float(delta.abs().max())
    scale = 0.5 / largest if largest > 0 else 1.0
    panels = (
        ("original", result.original, _caption(result.before)),
        (
            f"perturbation × {scale:.3g}",
            0.5 + scale * delta,
            f"grey is no change; largest {largest * 255:.2f}/255",
        ),
        ("adversarial", result.adversarial, _caption(result.after)),
    )
    for column, (title, image, caption) in enumerate(panels):
        axes = canvas.add_subplot(grid[0, column])
        _show(axes, image)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel(caption, fontsize=10)
    _plot_curves(canvas.add_subplot(grid[1, :]), result)
    aim = f"towards {result.target}" if result.target else f"away from {result.label}"
    canvas.suptitle(f"{result.attack}, {aim}", fontsize=12)
    return canvas


def _plot_curves(axes: Axes, result: Attacked) -> None:
    for name, losses in result.curves.items():
        role = "target" if name == result.target else "true class"
        axes.plot(losses, label=f"{role}: {name}")
    axes.set_xlabel("image tried by the attack")
    axes.set_ylabel("cross-entropy")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _show(axes: Axes, image: Tensor) -> None:
    axes.imshow(_pixels(image), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def _pixels(image: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """``(H, W, 3)`` or ``(H, W)`` 8-bit pixels of a ``(1, C, H, W)`` image in [0, 1]."""
    channels_last = (image[0] * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
    return channels_last[..., 0] if channels_last.shape[-1] == 1 else channels_last


def _caption(ranking: list[tuple[str, float]]) -> str:
    name, probability = ranking[0]
    return f"{name} ({probability:.1%})"
