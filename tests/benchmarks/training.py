"""Training against peers on the same data and weights: MAIR, torchattacks, a worker DataLoader.

    python -m tests.benchmarks.training [--device cuda] [--batch 128] [--repeats 15]

MAIR_PATH=<checkout of https://github.com/Harry24k/MAIR> adds MAIR; without it that part is skipped
with a message. Every figure is a ratio of times, peer over ours (above 1: ours is faster): the two
run in pairs, each first in every second pair, and the median of the paired ratios is given with a
95 % interval. The ratio of the fastest runs says the same of a machine that others use too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from scipy.stats import binom
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import RandomCrop

from defenses.architectures import build
from defenses.datasets import Data, load
from defenses.methods import InnerAttack, Method, make_method
from defenses.models import initial_model
from defenses.randomness import generator
from defenses.schedule import learning_rate
from defenses.spec import DatasetSpec, Recipe, Selection, Threat, TrainingSpec
from defenses.state import State
from defenses.training import train

EPS, STEP_SIZE, STEPS = 8 / 255, 2 / 255, 10
NORMALISATION = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
PAPER = Recipe(channels_last=True, fold_batch_norm=True, tf32=True)  # the engine of study=paper
LIMIT_MAIR_CPU = 1.0
LIMIT_DATALOADER = 1.5

Work = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """Paired times of ours and of a peer, in seconds."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ours_s(self) -> float:
        return median(self.ours)

    @property
    def median(self) -> float:
        return median(self._sorted())

    def _sorted(self) -> list[float]:
        return sorted(b / a for a, b in zip(self.ours, self.theirs, strict=True))

    def __str__(self) -> str:
        values = self._sorted()
        rank = int(binom.ppf(0.025, len(values), 0.5))  # of an order statistic below the median
        low, high = values[max(rank - 1, 0)], values[min(len(values) - rank, len(values) - 1)]
        fastest = min(self.theirs) / min(self.ours)
        return (
            f"{self.median:.3f} (95 %: {low:.3f} to {high:.3f}; of the fastest runs "
            f"{fastest:.3f}); ours {self.ours_s:.3f} s"
        )


def compare(ours: Work, theirs: Work, repeats: int, device: torch.device) -> Ratio:
    """Both in turn, after one unmeasured run each."""

    def seconds(work: Work) -> float:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    seconds(ours), seconds(theirs)
    pairs = []
    for turn in range(repeats):
        if turn % 2:
            second, first = seconds(theirs), seconds(ours)
        else:
            first, second = seconds(ours), seconds(theirs)
        pairs.append((first, second))
    return Ratio(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


@dataclass
class Bench:
    """A network on one batch of images of CIFAR's size."""

    device: torch.device
    batch: int
    repeats: int
    architecture: str = "resnet18"

    def __post_init__(self) -> None:
        stream = generator("benchmark", "images")
        self.x = torch.rand(self.batch, 3, 32, 32, generator=stream).to(self.device)
        self.y = torch.randint(10, (self.batch,), generator=stream).to(self.device)

    def model(self) -> nn.Module:
        """The same weights each time."""
        return build(self.architecture, num_classes=10, normalisation=NORMALISATION).to(self.device)

    def our_pgd(self, recipe: Recipe) -> Work:
        """The inner attack of one training step."""
        state, method, attack, x = self._setting(recipe)
        return lambda: method.adversarial(state.model, x, self.y, attack)

    def our_step(self, recipe: Recipe) -> Work:
        """One adversarial training step, as the loop takes it."""
        state, method, attack, x = self._setting(recipe)

        def step() -> None:
            state.optimizer.zero_grad(set_to_none=True)
            x_adv = method.adversarial(state.model, x, self.y, attack)
            kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[recipe.precision]
            with torch.autocast(self.device.type, dtype=kind, enabled=kind is not None):
                terms = method.objective(state.model, x, x_adv, self.y)
            terms.total.backward()
            state.apply_gradients(0)
            state.add_loss(terms)

        return step

    def _setting(self, recipe: Recipe) -> tuple[State, Method, InnerAttack, Tensor]:
        attack = InnerAttack(
            eps=EPS,
            step_size=STEP_SIZE,
            steps=STEPS,
            precision=recipe.attack_precision,
            fold_batch_norm=recipe.fold_batch_norm,
            generator=generator(0, "attack", device=self.device),
        )
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        x = self.x.contiguous(memory_format=layout)
        return State.new(self.model(), recipe, self.device), make_method("at", {}), attack, x

    def torchattacks_pgd(self) -> Work:
        import torchattacks  # only here: not every machine with a GPU has it

        attack = torchattacks.PGD(self.model().eval(), eps=EPS, alpha=STEP_SIZE, steps=STEPS)
        return lambda: attack(self.x, self.y)


def mair_works(bench: Bench, checkout: Path) -> tuple[Work, Work]:
    """MAIR's PGD and its adversarial training step, on the same weights and images."""
    sys.path.insert(0, str(checkout))
    import mair
    from mair.attacks import PGD
    from mair.defenses import AT

    def wrapped() -> nn.Module:
        return mair.RobModel(bench.model(), n_classes=10)

    attack = PGD(wrapped().eval(), eps=EPS, alpha=STEP_SIZE, steps=STEPS)
    trainer = AT(wrapped(), eps=EPS, alpha=STEP_SIZE, steps=STEPS)
    trainer.device = bench.device
    trainer.setup(optimizer="SGD(lr=0.1, momentum=0.9, weight_decay=5e-4)")

    def step() -> None:
        trainer._init_dicts_record_save()
        trainer.rmodel.train()
        trainer._update_weight((bench.x, bench.y))

    return lambda: attack(bench.x, bench.y), step


class WorkerImages(Dataset[tuple[Tensor, int]]):
    """Images augmented one by one, in a worker process: how most training code does it."""

    def __init__(self, data: Data, padding: int) -> None:
        self.images = data.train.images
        self.labels = data.train.labels.tolist()
        self.crop = RandomCrop(data.image_size, padding=padding)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.crop(self.images[index]).float() / 255, self.labels[index]


def dataloader_training(spec: TrainingSpec, data: Data) -> None:
    """The same training, its batches from a DataLoader with two workers; nothing is judged."""
    model = initial_model(spec, data, "id")
    method = make_method(spec.method, {})
    optimizer = torch.optim.SGD(
        model.parameters(), lr=spec.recipe.lr, momentum=0.9, weight_decay=spec.recipe.weight_decay
    )
    loader = DataLoader(
        WorkerImages(data, spec.recipe.crop_padding), spec.batch_size, shuffle=True, num_workers=2
    )
    attack = InnerAttack(
        eps=spec.threat.eps,
        step_size=spec.threat.step_size,
        steps=spec.steps or 0,
        generator=generator(0, "attack"),
    )
    for epoch in range(1, spec.recipe.epochs + 1):
        optimizer.param_groups[0]["lr"] = learning_rate(spec.recipe, epoch, 0, len(loader))
        for x, y in loader:
            model.train()
            loss = method.loss(model, x, y, attack).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        F.cross_entropy(model(data.selection.images.float() / 255), data.selection.labels)


def dataloader_ratio(method: str, repeats: int) -> Ratio:
    """A demo training of digits: ours with checkpoints, selection and files, theirs bare."""
    spec = TrainingSpec(
        architecture="resnet_small",
        method=method,
        steps=None if method == "standard" else 10,
        optimizer="sgd",
        batch_size=64,
        augmentation="crop_flip",
        extra_data=False,
        dataset=DatasetSpec(),
        threat=Threat(eps=0.15, step_size=0.04),
        recipe=Recipe(
            epochs=5,
            crop_padding=1,
            horizontal_flip=False,
            channels_last=True,
            fold_batch_norm=True,
            selection=Selection(size=50),
        ),
        seed=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        data = load(spec.dataset, extra_data=False, cache=Path(folder))

        def ours() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as directory:
                train(spec, data, Path(directory), training_id="id", device="cpu")

        def theirs() -> None:
            dataloader_training(spec, data)

        return compare(ours, theirs, repeats, torch.device("cpu"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    bench = Bench(device, arguments.batch, arguments.repeats)
    print(f"resnet18, batch {bench.batch}, {device}, {torch.get_num_threads()} threads, fp32")
    engines = {"plain": Recipe(), "study=paper": PAPER}

    for name, recipe in engines.items():
        ratio = compare(bench.our_pgd(recipe), bench.torchattacks_pgd(), bench.repeats, device)
        print(f"PGD-10, {name}, torchattacks / ours: {ratio}")
    checkout = os.environ.get("MAIR_PATH")
    if checkout is None:
        print("MAIR: skipped; set MAIR_PATH to a checkout of https://github.com/Harry24k/MAIR")
    else:
        their_pgd, their_step = mair_works(bench, Path(checkout))
        for name, recipe in engines.items():
            ratio = compare(bench.our_pgd(recipe), their_pgd, bench.repeats, device)
            print(f"PGD-10, {name}, MAIR / ours: {ratio}; wanted at least {LIMIT_MAIR_CPU}")
            ratio = compare(bench.our_step(recipe), their_step, bench.repeats, device)
            rate = bench.batch / ratio.ours_s
            print(f"AT step, {name}, MAIR / ours: {ratio}; ours {rate:.0f} images/s")
    if device.type == "cpu":
        for method in ("standard", "at"):
            ratio = dataloader_ratio(method, bench.repeats)
            print(
                f"digits, {method}, DataLoader with two workers / ours: {ratio}; "
                f"wanted at least {LIMIT_DATALOADER}"
            )


if __name__ == "__main__":
    main()
