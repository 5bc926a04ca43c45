"""What defines a training: frozen, typed, validated. Everything here can affect the weights.

``sweep.setting`` fills these from the configuration and hashes them into a training's id; the
training loop and the methods read them. Errors raised here are for users: ``ValueError`` with
the valid choices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Norm = Literal["linf", "l2"]
Optimizer = Literal["sgd", "awp"]
Augmentation = Literal["none", "crop_flip"]
Precision = Literal["fp32", "bf16", "fp16"]
Schedule = Literal["step", "cosine", "constant"]
PerturbationForm = Literal["global", "layerwise"]
Preprocessing = Literal["Res256Crop224", "BicubicRes256Crop224", "Crop288", "Res224"]


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless ``condition`` holds: for values that a user gave."""
    if not condition:
        raise ValueError(message)


def require_choice(name: str, value: object, choices: tuple[Any, ...]) -> None:
    require(
        value in choices,
        f"{name}={value!r} is not valid; choose one of: {', '.join(map(str, choices))}",
    )


@dataclass(frozen=True, kw_only=True)
class Threat:
    """The adversary: which perturbations are allowed, and how far one ascent step goes.

    ``eps`` and ``step_size`` are in units of the norm, on images in [0, 1].
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    step_size: float = 2 / 255

    def __post_init__(self) -> None:
        require_choice("threat.norm", self.norm, get_args(Norm))
        require(self.eps >= 0, f"threat.eps={self.eps} must be at least 0")
        require(self.step_size >= 0, f"threat.step_size={self.step_size} must be at least 0")
        require(
            self.norm != "linf" or self.eps <= 1,
            f"threat.eps={self.eps} covers the whole image range [0, 1]; did you mean "
            f"{self.eps:g}/255?",
        )


@dataclass(frozen=True, kw_only=True)
class WeightPerturbation:
    """Adversarial weight perturbation (AWP; Wu, Xia & Wang, NeurIPS 2020).

    ``layerwise`` is the authors' code: each convolution's and linear layer's perturbation has
    ``gamma`` times the norm of its weights. ``global`` is MAIR's: one ratio ``gamma`` over all
    parameters together. ``warmup_epochs`` epochs are trained without it.
    """

    form: PerturbationForm = "global"
    gamma: float = 5e-3
    warmup_epochs: int = 0

    def __post_init__(self) -> None:
        require_choice("awp.form", self.form, get_args(PerturbationForm))
        require(self.gamma >= 0, f"awp.gamma={self.gamma} must be at least 0")
        require(self.warmup_epochs >= 0, f"awp.warmup_epochs={self.warmup_epochs} is negative")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How the ``best`` checkpoint is chosen: once an epoch, ties to the later epoch.

    Robust methods by PGD accuracy with ``steps`` steps, ``standard`` by clean accuracy, both on
    ``split``. ``first_epoch`` (counted from 1) is the first that may be chosen.
    ``split="test"`` exists only to reproduce published anchors that were chosen so.
    """

    split: Literal["held_out", "test"] = "held_out"
    size: int | None = None  # None: all of the split
    steps: int = 10
    first_epoch: int = 1

    def __post_init__(self) -> None:
        require_choice("training.selection.split", self.split, ("held_out", "test"))
        require(self.steps >= 1, f"training.selection.steps={self.steps} must be at least 1")
        require(self.first_epoch >= 1, "training.selection.first_epoch counts from 1")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The optimisation. ``milestones`` are fractions of the epochs, so that they scale with them.

    ``min_steps_per_epoch``: where an epoch over the images has fewer batches (small data, large
    batches), it goes on over a new permutation until that many are done.
    ``single_step_size``: step size of one-step attacks; None: ``threat.step_size``. (Fast-AT
    uses about 1.25 eps.)
    ``ema_decay``: None: no weight averaging; else the averaged weights are what is evaluated
    and saved as best and last.
    ``compile``: torch.compile for the network. ``cuda_graphs``: with it, on a GPU, the compiled
    kernels are recorded once and replayed (its mode "reduce-overhead"): for small networks, whose
    kernels take less time than launching them.
    ``fold_batch_norm``: while a batch is attacked in eval mode, batch norm is part of the
    convolutions before it (``defenses.folding``).
    """

    epochs: int = 200
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "step"
    milestones: tuple[float, ...] = (0.5, 0.75)
    lr_decay: float = 0.1
    min_steps_per_epoch: int = 0
    single_step_size: float | None = None
    ema_decay: float | None = None
    crop_padding: int = 4
    horizontal_flip: bool = True  # off for digits, whose mirror images are no digits
    precision: Precision = "fp32"
    attack_precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False
    cuda_graphs: bool = False
    fold_batch_norm: bool = False
    tf32: bool = False
    deterministic: bool = True
    selection: Selection = field(default_factory=Selection)

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"training.epochs={self.epochs} must be at least 1")
        require(self.lr > 0, f"training.lr={self.lr} must be positive")
        require(0 <= self.momentum < 1, f"training.momentum={self.momentum} must be in [0, 1)")
        require(self.weight_decay >= 0, f"training.weight_decay={self.weight_decay} is negative")
        require_choice("training.schedule", self.schedule, get_args(Schedule))
        require(
            all(0 < m < 1 for m in self.milestones)
            and list(self.milestones) == sorted(self.milestones),
            f"training.milestones={list(self.milestones)} must be rising fractions in (0, 1)",
        )
        require(0 < self.lr_decay <= 1, f"training.lr_decay={self.lr_decay} must be in (0, 1]")
        require(self.min_steps_per_epoch >= 0, "training.min_steps_per_epoch is negative")
        require(
            self.single_step_size is None or self.single_step_size > 0,
            f"training.single_step_size={self.single_step_size} must be positive or null",
        )
        require(
            self.ema_decay is None or 0 < self.ema_decay < 1,
            f"training.ema_decay={self.ema_decay} must be in (0, 1) or null",
        )
        require(self.crop_padding >= 0, "training.crop_padding is negative")
        require_choice("training.precision", self.precision, get_args(Precision))
        require_choice("training.attack_precision", self.attack_precision, get_args(Precision))
        require(
            self.compile or not self.cuda_graphs,
            "training.cuda_graphs=true records compiled kernels: it needs training.compile=true",
        )
        require(
            not (self.compile and self.fold_batch_norm),
            "training.fold_batch_norm=true changes the network that training.compile=true has "
            "compiled; choose one of the two",
        )
        require(
            self.selection.first_epoch <= self.epochs,
            f"training.selection.first_epoch={self.selection.first_epoch} is after the last "
            f"epoch ({self.epochs})",
        )


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Which images. ``path``, ``extra_path`` and ``download`` say where they are, not which.

    ``train_size``, ``selection_size``, ``extra_size``, ``test_size``: None: the data set's own
    default. ``extra_labels``: labels of the extra images (``pseudo``: by a fixed standard net).
    ``preprocessing``: how ImageNet's photographs become images of one size, as RobustBench names
    it; None: Res256Crop224.
    """

    name: str = "digits"
    path: str | None = None
    download: bool = False
    train_size: int | None = None
    selection_size: int | None = None
    extra_size: int | None = None
    test_size: int | None = None
    extra_labels: Literal["pseudo", "true"] = "pseudo"
    extra_path: str | None = None
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        require_choice("dataset.extra_labels", self.extra_labels, ("pseudo", "true"))
        require_choice(
            "dataset.preprocessing", self.preprocessing, (None, *get_args(Preprocessing))
        )
        for key in ("train_size", "selection_size", "extra_size", "test_size"):
            size = getattr(self, key)
            require(size is None or size >= 1, f"dataset.{key}={size} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Weights that come from elsewhere: a model of RobustBench's zoo, ``dataset/norm/name``.

    ``folder`` says where its files are (None: in the results folder), ``sha256`` what they hold
    (None: they are not there).
    """

    name: str
    folder: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """One training. ``method_parameters`` are those of the method's own dataclass (TRADES: beta).

    ``steps`` (inner maximisation) is None exactly for methods without an inner maximisation;
    ``weight_perturbation`` is None exactly for ``optimizer="sgd"``. ``imported``: the weights are
    not trained but come from there, and only data set and threat mean something.
    """

    architecture: str
    method: str
    method_parameters: dict[str, Any] = field(default_factory=dict)
    steps: int | None
    optimizer: Optimizer
    weight_perturbation: WeightPerturbation | None = None
    batch_size: int
    augmentation: Augmentation
    extra_data: bool
    dataset: DatasetSpec
    threat: Threat
    recipe: Recipe
    seed: int
    imported: Imported | None = None

    def __post_init__(self) -> None:
        require_choice("optimizer", self.optimizer, get_args(Optimizer))
        require_choice("augmentation", self.augmentation, get_args(Augmentation))
        require(self.batch_size >= 1, f"batch_size={self.batch_size} must be at least 1")
        require(self.steps is None or self.steps >= 1, f"steps={self.steps} must be at least 1")
        require(
            (self.weight_perturbation is not None) == (self.optimizer == "awp"),
            "weight_perturbation belongs to optimizer=awp, and only to it",
        )
        require(self.seed >= 0, f"seed={self.seed} must be at least 0")
