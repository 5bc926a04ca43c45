"""Labels for extra images from a fixed standard net, as the extra data of the literature has them.

Carmon, Raghunathan, Schmidt, Liang & Duchi, "Unlabeled Data Improves Adversarial Robustness",
NeurIPS 2019, https://arxiv.org/abs/1905.13736: a classifier trained without attack on the labelled
images labels the others.

A net trained anew on another machine would differ in a few labels, and with them every training's
id. So the labels of the embedded data sets are shipped in ``pseudo_labels.json``; others are
computed once and kept in the cache. ``python -m defenses.datasets digits`` computes shipped labels
anew and says how many agree.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
import torch.nn.functional as F

from defenses.architectures import build
from defenses.datasets.data import Split, channel_statistics, to_float
from defenses.files import write_atomically
from defenses.randomness import generator

SHIPPED = Path(__file__).with_suffix(".json")
EPOCHS = 20
BATCH = 64
LR = 0.1


def pseudo_labels(base: Split, aside: Split, num_classes: int, cache: Path) -> torch.Tensor:
    """Labels ``(N,)`` of ``aside.images``: shipped, from the cache, or computed and cached."""
    key = labels_key(base, aside)
    shipped = json.loads(SHIPPED.read_text())
    if key in shipped:
        return torch.tensor([int(label) for label in shipped[key]])
    path = cache / "pseudo_labels" / f"{key}.json"
    if not path.exists():
        labels = compute(base, aside, num_classes)
        write_atomically(path, json.dumps(labels.tolist()).encode())
    return torch.tensor(json.loads(path.read_text()))


def compute(train: Split, extra: Split, num_classes: int) -> torch.Tensor:
    """Train the labeller on ``train`` and label ``extra``; the same result for the same machine."""
    device = train.images.device
    size = train.images.shape[2]
    model = build(
        "resnet_small" if size < 16 else "resnet_medium",
        num_classes=num_classes,
        in_channels=train.images.shape[1],
        image_size=size,
        normalisation=channel_statistics(train),
        generator=generator("pseudo labels", "initial weights"),
    ).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, weight_decay=5e-4)
    total = EPOCHS * -(-len(train) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    for epoch in range(EPOCHS):
        shuffle = generator("pseudo labels", "batches", epoch)
        for batch in torch.randperm(len(train), generator=shuffle).to(device).split(BATCH):
            loss = F.cross_entropy(model(to_float(train.images[batch])), train.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        found = [model(to_float(images)).argmax(1) for images in extra.images.split(1000)]
    return torch.cat(found)


def labels_key(train: Split, extra: Split) -> str:
    """What the labels depend on: the labelled images, the images to label, the labeller."""
    unlabelled = Split(extra.images, torch.zeros_like(extra.labels))
    name = f"{train.digest()} {unlabelled.digest()} {EPOCHS} {BATCH} {LR}"
    return hashlib.sha256(name.encode()).hexdigest()[:32]
