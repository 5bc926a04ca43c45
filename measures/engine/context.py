"""What all measures of one model share: its copy, the images, and what is costly to get.

Everything costly is computed when first asked for and kept: one set of adversarial examples, one
pass over each set of images for logits, input gradients and the weight gradient, one folded
network. Which measures run, and in which order, therefore changes no value.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from defenses.attacks import pgd
from defenses.attacks.losses import cross_entropy, margin
from defenses.attacks.threat import geometry
from defenses.randomness import generator
from defenses.spec import Threat
from measures.engine.folding import Folded, LinearMap, fold, linear_maps
from measures.engine.measure import Undefined
from measures.engine.operator_norm import frobenius_norm, spectral_norm

On = Literal["adversarial", "clean"]
Weights = Literal["folded", "raw"]
LayerNorm = Literal["spectral", "frobenius"]
T = TypeVar("T")

ATTACK_STEPS = 10  # of the shared PGD examples; part of the definition of what uses them
ATTACK_VERSION = 1
FOLDING_IMAGES = 8  # on which folding is checked to leave the logits unchanged


class Pass:
    """One pass over one set of images. N examples, K classes, D features of the last layer.

    The sums behind the gradients are over examples one by one (no batch average), so no value
    depends on the batch size.
    """

    def __init__(self, context: Context, images: Tensor, *, with_gradients: bool) -> None:
        self.context = context
        self.images = images
        self.with_gradients = with_gradients
        self.labels = context.labels

    @cached_property
    def logits(self) -> Tensor:
        """``(N, K)``."""
        if self.with_gradients:
            return self._forward_backward[0]
        return self.context.logits(self.context.model, self.images)

    @cached_property
    def probabilities(self) -> Tensor:
        """``(N, K)``, rows sum to 1."""
        return self.logits.softmax(dim=1)

    @cached_property
    def cross_entropy(self) -> Tensor:
        """``(N,)``, in nats."""
        return cross_entropy(self.logits, self.labels)

    @cached_property
    def margins(self) -> Tensor:
        """``(N,)``: logit of the true class minus the largest other one; > 0 if correct."""
        return margin(self.logits, self.labels)

    @cached_property
    def log_margin(self) -> float:
        """log γ, γ the 10th percentile of the margins; ``Undefined`` for γ <= 0."""
        gamma = float(torch.quantile(self.margins.double(), 0.1))
        if gamma <= 0:
            raise Undefined(f"the 10th percentile of the margin is not positive ({gamma:.3g})")
        return math.log(gamma)

    @property
    def input_gradients(self) -> Tensor:
        """Gradient of each example's cross-entropy by its pixels, shaped like the images."""
        return self._forward_backward[1]

    @property
    def weight_gradient(self) -> dict[str, Tensor]:
        """Gradient of the mean cross-entropy by each trainable parameter."""
        return self._forward_backward[2]

    @cached_property
    def features(self) -> Tensor:
        """``(N, D)``: what enters the last linear layer."""
        head = self.context.head
        seen: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        try:
            self.context.logits(self.context.model, self.images)
        finally:
            hook.remove()
        return torch.cat(seen)

    @cached_property
    def _forward_backward(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits, input gradients and weight gradient from one forward and backward pass."""
        model = self.context.model
        names, parameters = zip(*trainable(model).items(), strict=True)
        sums = [torch.zeros_like(p) for p in parameters]
        logits, gradients = [], []
        for x, y in self.context.batches(self.images, self.labels):
            x.requires_grad_(True)
            z = model(x)
            loss = F.cross_entropy(z, y, reduction="sum")
            by_x, *by_w = torch.autograd.grad(loss, [x, *parameters], materialize_grads=True)
            torch._foreach_add_(sums, by_w)
            logits.append(z.detach())
            gradients.append(by_x)
        mean = {name: s / len(self.labels) for name, s in zip(names, sums, strict=True)}
        return torch.cat(logits), torch.cat(gradients), mean


class Context:
    """One model, prepared for measuring. ``model`` is a private copy in eval mode and float32.

    ``images`` ``(N, ...)`` are in [0, 1], ``labels`` ``(N,)``; both on the model's device.
    ``initial_state`` are the weights before training, ``train_size`` the number of training
    images, where known. ``gradients_wanted`` says on which images some measure wants gradients,
    so that the logits can come from the same pass. A measure may do to ``model`` what it likes:
    the runner notices and replaces the copy.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        threat: Threat,
        initial_state: dict[str, Tensor] | None = None,
        train_size: int | None = None,
        batch_size: int = 256,
        seed: int = 0,
        gradients_wanted: frozenset[On] = frozenset(),
        watch: Callable[[nn.Module], None] | None = None,
    ) -> None:
        self._original = model
        self._watch = watch
        self.images = images
        self.labels = labels
        self.threat = threat
        self.initial_state = initial_state
        self.train_size = train_size
        self.batch_size = batch_size
        self.seed = seed
        self.gradients_wanted = gradients_wanted
        self.model = self.private_copy()
        self._once: dict[tuple[object, ...], Any] = {}

    def private_copy(self) -> nn.Module:
        """A fresh copy of the model in eval mode, float32, all parameters trainable, no hooks
        of ours; counted by ``watch`` if the caller wants its passes counted."""
        model = copy.deepcopy(self._original).float().eval()
        for parameter in model.parameters():
            parameter.grad = None
            parameter.requires_grad_(True)
        return self.watched(model)

    def watched(self, model: nn.Module) -> nn.Module:
        """``model``, whose passes are counted from now on where that is wanted."""
        if self._watch is not None:
            self._watch(model)
        return model

    def renew_model(self) -> None:
        """Replace the private copy, after a measure has changed it."""
        self.model = self.private_copy()
        for stale in ("head", "_raw_layers"):  # they refer to the copy's modules
            self.__dict__.pop(stale, None)

    def generator(self, purpose: str, *counters: int) -> torch.Generator:
        """The stream of random numbers for ``purpose``, on the CPU: the same on every device."""
        return generator(self.seed, f"measures/{purpose}", *counters)

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def image_shape(self) -> torch.Size:
        """``(C, H, W)``, for measures that look at no image."""
        return self.images.shape[1:]

    @property
    def num_classes(self) -> int:
        return self.clean.logits.shape[1]

    def batches(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The tensors in aligned slices of ``batch_size`` examples, detached."""
        for start in range(0, len(tensors[0]), self.batch_size):
            yield tuple(t[start : start + self.batch_size].detach() for t in tensors)

    @torch.no_grad()
    def logits(self, model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """``(N, K)``: ``model`` on all images, in batches, without gradients."""
        return torch.cat([model(x) for (x,) in self.batches(images)])

    def on(self, which: On) -> Pass:
        return self.clean if which == "clean" else self.adversarial

    @cached_property
    def clean(self) -> Pass:
        return Pass(self, self.images, with_gradients="clean" in self.gradients_wanted)

    @cached_property
    def adversarial(self) -> Pass:
        """PGD with 10 steps on the cross-entropy at the study's threat, with a random start that
        depends on the seed and the example alone."""
        images = self.attack(self.model, self.images, self.labels, purpose="pgd")
        return Pass(self, images, with_gradients="adversarial" in self.gradients_wanted)

    def attack(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        purpose: str,
        counter: int = 0,
        steps: int = ATTACK_STEPS,
    ) -> Tensor:
        """PGD examples of ``model`` at the threat; the start belongs to (purpose, counter).

        The start is drawn for all images at once, so that it does not depend on the batches.
        """
        threat = self.threat
        stream = self.generator(purpose, counter)
        start = geometry(threat.norm).random_start(images.cpu(), threat.eps, stream)
        return torch.cat(
            [
                pgd(
                    model,
                    x,
                    y,
                    eps=threat.eps,
                    step_size=threat.step_size,
                    steps=steps,
                    norm=threat.norm,
                    start=x_0,
                )
                for x, y, x_0 in self.batches(images, labels, start.to(self.device))
            ]
        )

    @cached_property
    def folded(self) -> Folded:
        """The model with batch-norm folded; ``Undefined`` with the reason where that cannot be."""
        folded = fold(self.model, self.images[:FOLDING_IMAGES])
        self.watched(folded.model)
        return folded

    @cached_property
    def initial_model(self) -> nn.Module:
        """The model before training; ``Undefined`` where its weights are not known."""
        if self.initial_state is None:
            raise Undefined("the weights before training are not known")
        model = self.private_copy()
        try:
            model.load_state_dict(self.initial_state)
        except RuntimeError as error:
            first = str(error).partition("\n")[0]
            raise Undefined(f"the weights before training are of another model: {first}") from error
        return model

    @cached_property
    def folded_initial(self) -> Folded:
        """The model before training, folded with its own batch-norm statistics."""
        return fold(self.initial_model, self.images[:FOLDING_IMAGES])

    def layers(self, weights: Weights) -> list[LinearMap]:
        """The linear maps of the folded network, or those of the model as it is."""
        return self.folded.maps if weights == "folded" else self._raw_layers

    def initial_layers(self, weights: Weights) -> list[LinearMap]:
        """The same maps before training."""
        if weights == "folded":
            return self.folded_initial.maps
        return linear_maps(self.initial_model, self.images[:1])

    def layer_norms(self, weights: Weights, norm: LayerNorm) -> list[float]:
        """``norm`` of each map; kept, since several measures are made of them."""
        function = spectral_norm if norm == "spectral" else frobenius_norm
        return self.once(
            ("layer norms", weights, norm),
            lambda: [function(layer) for layer in self.layers(weights)],
        )

    def once(self, key: tuple[object, ...], compute: Callable[[], T]) -> T:
        """The result of ``compute`` at its first call for ``key``: what variants of one measure
        share. ``key`` starts with a word of the measure's own and holds all that it depends on."""
        if key not in self._once:
            self._once[key] = compute()
        value: T = self._once[key]
        return value

    @cached_property
    def _raw_layers(self) -> list[LinearMap]:
        return linear_maps(self.model, self.images[:1])

    @cached_property
    def head(self) -> nn.Linear:
        """The last linear layer; ``Undefined`` unless the logits are its direct output."""
        called: list[tuple[nn.Module, Tensor]] = []
        linears = [m for m in self.model.modules() if isinstance(m, nn.Linear)]
        hooks = [m.register_forward_hook(lambda m, _, z: called.append((m, z))) for m in linears]
        try:
            logits = self.logits(self.model, self.images[:1])
        finally:
            for hook in hooks:
                hook.remove()
        if not called or not torch.equal(called[-1][1], logits):
            raise Undefined("the model's last layer is not a linear layer")
        head = called[-1][0]
        assert isinstance(head, nn.Linear)
        return head


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Name -> parameter, without parameters that are no real numbers (quantised, integer)."""
    return {name: p for name, p in model.named_parameters() if p.is_floating_point()}
