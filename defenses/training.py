"""The training loop, from top to bottom: plan an epoch, take its steps, judge it, keep it.

Every random number is drawn from a stream named by (training, purpose, epoch, step), and a
checkpoint holds everything else, so that a killed and resumed training ends with the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from defenses.awp import perturbed_gradients
from defenses.batches import EpochPlan, labelled_per_batch, plan_epoch, steps_per_epoch
from defenses.checkpoint import Keeper
from defenses.datasets import Data, Split
from defenses.failures import Diverged, Interrupted, OutOfMemory, memory_errors
from defenses.methods import InnerAttack, LossTerms, Method, make_method
from defenses.methods.base import autocast
from defenses.models import initial_model, load_model
from defenses.numerics import numerics
from defenses.randomness import generator
from defenses.schedule import learning_rate
from defenses.selection import judge, selection_split
from defenses.spec import TrainingSpec, require
from defenses.state import State

__all__ = [
    "DEFINITION",
    "Diverged",
    "Interrupted",
    "OutOfMemory",
    "TrainingResult",
    "load_model",
    "train",
]

DEFINITION = 1  # of the loop; enters the ids of trainings: raised when a correction changes results
CHECKPOINT_SHARE = 0.05  # at most this share of the time goes into writing checkpoints of epochs

Record = dict[str, Any]


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training was. ``seconds`` count all its attempts, selection included.

    ``labelled_epochs``: passes over the base training set, fewer than ``epochs`` with extra data.
    """

    epochs: int
    steps: int
    best_epoch: int
    best_score: float
    labelled_epochs: float
    seconds: float
    history: tuple[Record, ...]


def train(
    spec: TrainingSpec,
    data: Data,
    directory: Path,
    *,
    training_id: str,
    device: torch.device | str,
    on_epoch: Callable[[Record], None] = lambda record: None,
    should_stop: Callable[[], bool] = lambda: False,
    before_commit: Callable[[], None] = lambda: None,
    checkpoint_minutes: float = 10.0,
) -> TrainingResult:
    """Train, or go on training, in ``directory``; leaves {initial,best,last}.safetensors there.

    ``on_epoch`` gets each new line of ``history.jsonl`` once the checkpoint that contains it is
    durable. A checkpoint is written after ``checkpoint_minutes``, in the middle of an epoch too,
    and after an epoch if writing it costs little of the time since the last. ``before_commit``
    is called before any file becomes visible.

    Raises ``Interrupted`` at the next step once ``should_stop()`` is true, after saving;
    ``Diverged`` within the epoch in which loss or weights stop being finite; ``OutOfMemory``;
    ``ValueError`` for a specification that cannot be trained.
    """
    method = make_method(spec.method, spec.method_parameters)
    check_steps(spec, method)
    device = torch.device(device)
    recipe = spec.recipe
    require(
        device.type == "cuda" or not recipe.cuda_graphs,
        f"training.cuda_graphs=true needs an NVIDIA GPU, and the device is {device}",
    )
    require(
        method.compilable or not recipe.compile,
        f"training.compile=true: method {spec.method} differentiates gradients, which compiled "
        "networks cannot",
    )
    data = data.to(device)
    steps = steps_per_epoch(spec, len(data.train))
    judged_on = selection_split(recipe.selection, data)
    keeper = Keeper(directory, training_id, before_commit)

    with (
        numerics(device, tf32=recipe.tf32, deterministic=recipe.deterministic),
        memory_errors(spec),
    ):
        model = initial_model(spec, data, training_id)
        if not (directory / "initial.safetensors").exists():
            keeper.write_weights("initial", model.state_dict())
        state = State.new(model.to(device), recipe, device)
        stored = keeper.load(device)
        if stored is not None:
            state.restore(stored)
            keeper.write_history(state.history)
        clock = _Clock(keeper, state, on_epoch, checkpoint_minutes)

        while state.epoch <= recipe.epochs:
            plan = plan_epoch(spec, data, training_id, state.epoch)
            state.model.train()
            while state.step < steps:
                if should_stop():
                    clock.save()
                    raise Interrupted(f"in epoch {state.epoch}, before step {state.step}")
                take_step(spec, method, state, plan, training_id, steps)
                if clock.save_is_due():
                    clock.save()
            finish_epoch(spec, method, state, judged_on, steps, len(data.train))
            if clock.epoch_is_worth_saving() or state.epoch > recipe.epochs:
                clock.save()

        assert state.best is not None
        keeper.write_weights("best", state.best)
        keeper.write_weights("last", state.evaluated.state_dict())
    return TrainingResult(
        epochs=recipe.epochs,
        steps=recipe.epochs * steps,
        best_epoch=state.best_epoch,
        best_score=state.best_score,
        labelled_epochs=labelled_epochs(spec, recipe.epochs, steps, len(data.train)),
        seconds=state.seconds,
        history=tuple(state.history),
    )


def take_step(
    spec: TrainingSpec,
    method: Method,
    state: State,
    plan: EpochPlan,
    training_id: str,
    steps: int,
) -> None:
    """One optimisation step; ``state.step`` then counts one more.

    Nothing waits for a GPU, but in fp16 for whether a gradient overflowed.
    """
    recipe = spec.recipe
    x, y = plan.batch(state.step)
    if recipe.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    attack = inner_attack(spec, method, training_id, state.epoch, state.step, x.device)
    state.optimizer.zero_grad(set_to_none=True)
    terms = leave_gradients(spec, method, state, x, y, attack)
    lr = learning_rate(recipe, state.epoch, state.step, steps)
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    state.apply_gradients((state.epoch - 1) * steps + state.step)
    state.add_loss(terms)
    state.step += 1


def leave_gradients(
    spec: TrainingSpec, method: Method, state: State, x: Tensor, y: Tensor, attack: InnerAttack
) -> LossTerms:
    """Differentiate the loss into ``.grad``: at the weights, or with AWP at the worst ones near."""
    recipe = spec.recipe
    awp = spec.weight_perturbation
    scale = state.loss_scale(x.device)
    if awp is not None and state.epoch > awp.warmup_epochs:
        return perturbed_gradients(
            state.model, method, x, y, attack, awp, precision=recipe.precision, loss_scale=scale
        )
    x_adv = method.adversarial(state.model, x, y, attack)
    with autocast(x.device, recipe.precision):
        terms = method.objective(state.model, x, x_adv, y)
    (terms.total if scale is None else terms.total * scale).backward()
    return terms


def inner_attack(
    spec: TrainingSpec,
    method: Method,
    training_id: str,
    epoch: int,
    step: int,
    device: torch.device,
) -> InnerAttack:
    """The attack of one training step, with a random stream of its own."""
    threat, recipe = spec.threat, spec.recipe
    step_size = threat.step_size
    if spec.steps == 1 and recipe.single_step_size is not None:
        step_size = recipe.single_step_size
    return InnerAttack(
        eps=threat.eps,
        step_size=step_size,
        steps=spec.steps or 0,
        norm=threat.norm,
        mode=method.attack_mode,
        precision=recipe.attack_precision,
        fold_batch_norm=recipe.fold_batch_norm,
        generator=generator(training_id, "attack", epoch, step, device=device),
    )


def finish_epoch(
    spec: TrainingSpec,
    method: Method,
    state: State,
    judged_on: Split,
    steps: int,
    train_size: int,
) -> None:
    """Check that the epoch was sound, judge it on held-out images, add its line to the history."""
    state.check_finite()
    training_seconds = state.epoch_clock()
    eager = torch.compiler.set_stance("force_eager") if spec.recipe.compile else nullcontext()
    with eager:  # batches of other sizes, in fp32: compiling for them takes longer than they do
        scores = judge(state.evaluated, judged_on, spec, robust=method.needs_inner_maximisation)
    state.remember_if_best(scores, spec.recipe.selection.first_epoch)
    seconds = state.epoch_clock()
    state.seconds += seconds
    record: Record = {
        "epoch": state.epoch,
        "lr": learning_rate(spec.recipe, state.epoch, 0, steps),
        **state.mean_losses(steps),
        "clean_selection": scores.clean,
        "pgd_selection": scores.pgd,
        "labelled_epochs": labelled_epochs(spec, state.epoch, steps, train_size),
        "images_per_second": steps * spec.batch_size / training_seconds,
        "seconds": seconds,
    }
    state.history.append(record)
    state.next_epoch()


def labelled_epochs(spec: TrainingSpec, epochs: int, steps: int, train_size: int) -> float:
    """Passes over the base training set in ``epochs`` epochs of ``steps`` steps."""
    return round(epochs * steps * labelled_per_batch(spec) / train_size, 4)


def check_steps(spec: TrainingSpec, method: Method) -> None:
    """``ValueError`` unless ``spec.steps`` is given exactly if the method attacks its images."""
    require(
        not method.needs_inner_maximisation or spec.steps is not None,
        f"method {spec.method} needs steps=<number of attack steps>",
    )
    require(
        method.needs_inner_maximisation or spec.steps is None,
        f"method {spec.method} has no inner maximisation: steps must be null, not {spec.steps}",
    )


class _Clock:
    """Decides when to write a checkpoint, writes it, and then announces the epochs in it."""

    def __init__(
        self, keeper: Keeper, state: State, on_epoch: Callable[[Record], None], minutes: float
    ) -> None:
        self.keeper = keeper
        self.state = state
        self.on_epoch = on_epoch
        self.interval_s = minutes * 60
        self.announced = len(state.history)
        self.saved_at = time.monotonic()
        self.cost_s = 0.0  # of writing the last checkpoint

    def save_is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.interval_s

    def epoch_is_worth_saving(self) -> bool:
        return self.cost_s <= CHECKPOINT_SHARE * (time.monotonic() - self.saved_at)

    def save(self) -> None:
        self.state.check_finite()
        began = time.monotonic()
        self.keeper.save(self.state.as_dict(), self.state.history)
        self.saved_at = time.monotonic()
        self.cost_s = self.saved_at - began
        for record in self.state.history[self.announced :]:
            self.on_epoch(record)
        self.announced = len(self.state.history)
