"""How well each measure agrees with itself: Kendall's τ between two seeds, over a study's models.

python -m tests.benchmarks.reliability <results folder> <study>

The images stay the same; the seed changes every random draw, the start of PGD included. Prints
the table in docs/reliability.md.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.stats import kendalltau

import measures
from defenses import datasets
from defenses.datasets import to_float
from defenses.models import load_model
from measures import MEASURES
from sweep import manifest
from sweep.store import Store

SEEDS = (0, 1)
NOISY = 0.9
IMAGES = 300


def values(root: Path, study: str, names: list[str]) -> dict[str, np.ndarray]:
    """Measure -> values ``(models, seeds)``."""
    store = Store(root)
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    for job in manifest.jobs(store, study).values():
        spec, folder = job.spec, store.training(job.training_id)
        data = datasets.load(spec.dataset, extra_data=False, cache=store.datasets)
        images, labels = to_float(data.train.images[:IMAGES]), data.train.labels[:IMAGES]
        initial = load_file(folder / "initial.safetensors")
        model = load_model(spec, data, folder / "last.safetensors", "cpu")
        by_seed = [
            measures.compute(
                model,
                images,
                labels,
                names=names,
                threat=spec.threat,
                initial_state=initial,
                train_size=len(data.train.labels),
                batch_size=IMAGES,
                seed=seed,
            )
            for seed in SEEDS
        ]
        for name in names:
            found[name].append([result[name] for result in by_seed])
        sys.stderr.write(".")
        sys.stderr.flush()
    return {name: np.array(rows) for name, rows in found.items()}


def table(measured: dict[str, np.ndarray]) -> str:
    """The table of docs/reliability.md, from measure -> values (models, seeds)."""
    lines = ["| measure | τ between seeds | models with a value | |", "|---|---|---|---|"]
    for name, rows in measured.items():
        known = rows[np.isfinite(rows).all(axis=1)]
        tau = kendalltau(known[:, 0], known[:, 1]).statistic if len(known) > 1 else math.nan
        mark = "" if tau >= NOISY else ("noisy" if math.isfinite(tau) else "undefined")
        number = f" {tau:.3f} " if math.isfinite(tau) else " "
        lines.append(f"| `{name}` |{number}| {len(known)} of {len(rows)} | {mark} |")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    root, study = Path(sys.argv[1]), sys.argv[2]
    names = [name for name, entry in MEASURES.items() if entry.depends_on_seed]
    print(table(values(root, study, names)))


if __name__ == "__main__":
    main()
