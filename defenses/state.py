"""Everything that changes while training: what a checkpoint holds."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from defenses.failures import Diverged
from defenses.methods import LossTerms
from defenses.selection import Scores
from defenses.spec import Recipe

Weights = dict[str, Tensor]


@dataclass
class State:
    """``epoch`` (from 1) and ``step`` (from 0) are those to be done next.

    ``averaged`` is the exponential moving average of the model, if the recipe asks for one;
    ``losses`` sums of this epoch's loss terms, on the device; ``seconds`` the time of finished
    epochs over all attempts.
    """

    model: nn.Module
    averaged: nn.Module | None
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler | None
    ema_decay: float
    epoch: int = 1
    step: int = 0
    losses: dict[str, Tensor] = field(default_factory=dict)
    best: Weights | None = None
    best_score: float = -math.inf
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    epoch_began: float = field(default_factory=time.perf_counter)

    @classmethod
    def new(cls, model: nn.Module, recipe: Recipe, device: torch.device) -> State:
        """The state before the first step."""
        if recipe.channels_last:
            model = model.to(memory_format=torch.channels_last)
        averaged = None if recipe.ema_decay is None else copy.deepcopy(model).requires_grad_(False)
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            foreach=True,
        )
        scaler = torch.amp.GradScaler(device.type) if recipe.precision == "fp16" else None
        if recipe.compile:
            # all compiled networks of a process share one short list of variants, beyond which
            # nothing is compiled: those of earlier trainings must not fill it
            torch.compiler.reset()
            model.compile(mode="reduce-overhead" if recipe.cuda_graphs else None)
        return cls(model, averaged, optimizer, scaler, recipe.ema_decay or 0.0)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is judged and saved: the averaged one where there is one."""
        return self.model if self.averaged is None else self.averaged

    def loss_scale(self, device: torch.device) -> Tensor | None:
        """What fp16 losses are multiplied by, on the device; None in other precisions."""
        if self.scaler is None:
            return None
        scale: Tensor = self.scaler.scale(torch.ones((), device=device))
        return scale

    def apply_gradients(self, steps_done: int) -> None:
        """One step of the optimizer, then of the average. ``steps_done`` counts from the start."""
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.averaged is not None:
            self._average(steps_done)

    @torch.no_grad()
    def _average(self, steps_done: int) -> None:
        """averaged = d averaged + (1 - d) model; d grows to ``ema_decay`` in the first steps."""
        assert self.averaged is not None
        decay = min(self.ema_decay, (1 + steps_done) / (10 + steps_done))
        ours, theirs = self.averaged.state_dict(), self.model.state_dict()
        floats = [key for key, value in ours.items() if value.is_floating_point()]
        torch._foreach_lerp_([ours[k] for k in floats], [theirs[k] for k in floats], 1 - decay)
        for key in ours.keys() - set(floats):
            ours[key].copy_(theirs[key])

    def add_loss(self, terms: LossTerms) -> None:
        """Count the losses of a step, without waiting for the device."""
        for name, value in {"loss": terms.total.detach(), **terms.terms}.items():
            sum_so_far = self.losses.get(name)
            self.losses[name] = value.double() if sum_so_far is None else sum_so_far + value

    def mean_losses(self, steps: int) -> dict[str, float]:
        """Mean of each loss term over the epoch: "loss" and "loss/<term>"."""
        return {
            name if name == "loss" else f"loss/{name}": float(total) / steps
            for name, total in self.losses.items()
        }

    def check_finite(self) -> None:
        """Raise ``Diverged`` if a loss of this epoch or a weight is infinite or not a number."""
        for name, total in self.losses.items():
            if not math.isfinite(float(total)):
                raise Diverged(self.epoch, f"{name} is {float(total)}")
        norms = torch.stack(list(torch._foreach_norm(list(self.model.parameters()))))
        if not bool(norms.isfinite().all()):
            raise Diverged(self.epoch, "a weight is not finite")

    def remember_if_best(self, scores: Scores, first_epoch: int) -> None:
        """Keep the weights if no selectable epoch was better; among equals the latest wins."""
        if self.epoch < first_epoch or scores.selected < self.best_score:
            return
        self.best_score, self.best_epoch = scores.selected, self.epoch
        self.best = {k: v.detach().clone() for k, v in self.evaluated.state_dict().items()}

    def epoch_clock(self) -> float:
        """Seconds spent in this epoch so far, in all attempts."""
        return time.perf_counter() - self.epoch_began

    def next_epoch(self) -> None:
        self.epoch += 1
        self.step = 0
        self.losses = {}
        self.epoch_began = time.perf_counter()

    def as_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers, from which ``restore`` makes the same state."""
        return {
            "model": self.model.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "losses": self.losses,
            "best": self.best,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "epoch_seconds": self.epoch_clock(),
        }

    def restore(self, stored: dict[str, Any]) -> None:
        """Go back to a state that ``as_dict`` described."""
        self.model.load_state_dict(stored["model"])
        self.optimizer.load_state_dict(stored["optimizer"])
        if self.averaged is not None:
            self.averaged.load_state_dict(stored["averaged"])
        if self.scaler is not None:
            self.scaler.load_state_dict(stored["scaler"])
        self.epoch, self.step = stored["epoch"], stored["step"]
        self.losses = stored["losses"]
        self.best = stored["best"]
        self.best_score, self.best_epoch = stored["best_score"], stored["best_epoch"]
        self.history = stored["history"]
        self.seconds = stored["seconds"]
        self.epoch_began = time.perf_counter() - stored["epoch_seconds"]
