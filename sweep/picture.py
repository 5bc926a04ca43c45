"""One picture, one attack: what the model sees before and after.

The introduction that most people get to adversarial examples: a picture of a pig, a change that
nobody can see, and a network that now sees something else, or whatever it was told to see.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torchvision
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from defenses.architectures.layers import Normalise
from defenses.attacks import apgd, fgsm, pgd, square
from defenses.randomness import generator
from defenses.spec import Norm, require, require_choice
from sweep.convert import unknown
from sweep.external import GivenNormalisation, load_model, read_weights

Method = Literal["pgd", "fgsm", "apgd", "square"]
TARGETED: tuple[Method, ...] = ("pgd", "fgsm")
TOP = 5


@dataclass(frozen=True)
class Classifier:
    """A model for images in [0, 1], the names of its classes, and how a picture becomes its input.

    ``resize`` is the length of the picture's shorter side, of which the ``crop`` x ``crop``
    middle is used; None: the picture as it is.
    """

    model: nn.Module
    class_names: list[str]
    channels: int = 3
    resize: int | None = None
    crop: int | None = None


@dataclass(frozen=True)
class Attacked:
    """An attack on one picture. Images are ``(1, C, H, W)`` in [0, 1]."""

    original: Tensor
    adversarial: Tensor
    before: list[tuple[str, float]]  # most likely classes and their probabilities
    after: list[tuple[str, float]]
    label: str
    target: str | None
    curves: dict[str, list[float]]  # class -> its cross-entropy at every image the attack tried
    norm: Norm
    eps: float
    method: Method

    def lines(self) -> list[str]:
        """The most likely classes before and after, and what came of it, for a terminal."""
        width = max(len(name) for name, _ in self.before + self.after)
        text = []
        for title, ranking in (("before", self.before), ("after", self.after)):
            text.append(f"{title}:")
            text += [f"  {name:<{width}} {probability:7.2%}" for name, probability in ranking]
        seen = self.after[0][0]
        verb = "fooled" if self._fooled(seen) else "not fooled"
        if self._fooled(self.before[0][0]):
            verb = "wrong before any attack"
        aim = f", aimed at {self.target}" if self.target is not None else ""
        text.append(f"{verb}: {self.label} is seen as {seen} ({self.attack}{aim})")
        return text

    def _fooled(self, seen: str) -> bool:
        return seen == self.target if self.target is not None else seen != self.label

    @property
    def attack(self) -> str:
        """Method, norm and size, as people write them: ``PGD, L∞ ε = 2/255``."""
        levels = self.eps * 255
        whole = self.norm == "linf" and abs(levels - round(levels)) < 1e-6
        radius = f"{round(levels)}/255" if whole else f"{self.eps:g}"
        return f"{self.method.upper()}, {'L∞' if self.norm == 'linf' else 'L2'} ε = {radius}"


def torchvision_classifier(
    name: str, *, weights: Literal["pretrained", "random"] = "pretrained", download: bool = False
) -> Classifier:
    """A classifier of torchvision by its name, e.g. resnet50.

    ``pretrained`` weights are torchvision's default ones. They are fetched, with their checksum
    verified, only with ``download``; else they must be in torch's cache already.
    ``ValueError`` names the file that is missing, or the models that there are.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise unknown("model", name, names)
    recipe = torchvision.models.get_model_weights(name).DEFAULT
    network = torchvision.models.get_model(name, weights=None)
    if weights == "pretrained":
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(recipe.url).name
        if download:
            recipe.get_state_dict(progress=True, check_hash=True)
        require(
            cached.is_file(),
            f"the weights of {name} are not here ({cached}); fetch them with --download",
        )
        network.load_state_dict(read_weights(cached))
    look = recipe.transforms()
    model = nn.Sequential(Normalise(tuple(look.mean), tuple(look.std)), network)
    (resize,), (crop,) = look.resize_size, look.crop_size
    return Classifier(model.eval(), list(recipe.meta["categories"]), 3, resize, crop)


def checkpoint_classifier(
    source: str,
    *,
    architecture: str | None = None,
    normalisation: GivenNormalisation | None = None,
    class_names: list[str] | None = None,
    image_size: int | None = None,
) -> Classifier:
    """A classifier from weights of a study or from elsewhere, as ``external.load_model`` reads it.

    ``image_size``: the size that pictures are brought to. Classes without names are numbered.
    """
    model = load_model(source, architecture=architecture, normalisation=normalisation)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    require(bool(convolutions), f"{source}: a picture needs a model with convolutions")
    channels = convolutions[0].in_channels
    if class_names is None:
        side = image_size or 32
        with torch.no_grad():
            count = model(torch.zeros(1, channels, side, side)).shape[1]
        class_names = [str(index) for index in range(count)]
    return Classifier(model, class_names, channels, image_size, image_size)


def read_picture(path: Path, classifier: Classifier) -> Tensor:
    """The picture as the model's input ``(1, C, H, W)``, on the 8-bit grid of [0, 1]."""
    try:
        with Image.open(path) as file:
            picture = file.convert("RGB" if classifier.channels == 3 else "L")
    except FileNotFoundError as error:
        raise ValueError(f"{path}: there is no such file") from error
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error
    if classifier.resize is not None and classifier.crop is not None:
        scale = classifier.resize / min(picture.size)
        width, height = (max(round(side * scale), classifier.crop) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - classifier.crop) // 2, (height - classifier.crop) // 2
        picture = picture.crop((left, top, left + classifier.crop, top + classifier.crop))
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8))
    return pixels.view(*pixels.shape[:2], -1).permute(2, 0, 1)[None].float() / 255


def attack_picture(
    x: Tensor,
    classifier: Classifier,
    *,
    eps: float,
    norm: Norm = "linf",
    method: Method = "pgd",
    label: str | None = None,
    target: str | None = None,
    steps: int = 40,
    step_size: float | None = None,
    seed: int = 0,
) -> Attacked:
    """Attack one picture and record the loss at every image that the attack tries.

    ``label`` is the true class (default: what the model sees in the picture). ``target``, for
    pgd and fgsm, is the class to be seen instead; without it any other class will do.
    ``step_size`` defaults to 2.5 eps / steps; for square ``steps`` are queries.
    """
    require_choice("method", method, get_args(Method))
    require(steps >= 1, f"steps={steps} must be at least 1")
    require(norm != "linf" or eps <= 1, f"eps={eps:g} must be at most 1: did you mean {eps:g}/255?")
    require(
        target is None or method in TARGETED,
        f"method={method} has no target; choose one of: {', '.join(TARGETED)}",
    )
    model, names = classifier.model, classifier.class_names
    with torch.no_grad():
        clean = model(x)
    true = int(clean.argmax()) if label is None else _class(label, names)
    watched = {names[true]: true}
    if target is not None:
        watched[names[_class(target, names)]] = _class(target, names)
    goal = torch.tensor([true if target is None else _class(target, names)], device=x.device)

    tried: list[Tensor] = []
    hook = model.register_forward_hook(lambda module, args, logits: tried.append(logits.detach()))
    try:
        if method == "pgd":
            size = 2.5 * eps / steps if step_size is None else step_size
            x_adv = pgd(
                model, x, goal, eps=eps, norm=norm, step_size=size, steps=steps,
                targeted=target is not None, generator=generator(seed, "picture", device=x.device),
            )  # fmt: skip
        elif method == "fgsm":
            x_adv = fgsm(model, x, goal, eps=eps, norm=norm, targeted=target is not None)
        elif method == "apgd":
            x_adv = apgd(model, x, goal, eps=eps, norm=norm, steps=steps, seed=seed)
        else:
            x_adv = square(model, x, goal, eps=eps, norm=norm, queries=steps, seed=seed)
        with torch.no_grad():
            final = model(x_adv)
    finally:
        hook.remove()

    losses = -torch.cat(tried).double().log_softmax(dim=1)
    return Attacked(
        original=x,
        adversarial=x_adv,
        before=_ranking(clean, names),
        after=_ranking(final, names),
        label=names[true],
        target=None if target is None else names[int(goal)],
        curves={name: losses[:, index].tolist() for name, index in watched.items()},
        norm=norm,
        eps=eps,
        method=method,
    )


def _ranking(logits: Tensor, names: list[str]) -> list[tuple[str, float]]:
    best = logits[0].double().softmax(dim=0).topk(min(TOP, len(names)))
    return [(names[i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)]


def _class(name: str, names: list[str]) -> int:
    """Number of the class called or numbered ``name``; ``ValueError`` names near ones."""
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    near = [known for known in names if name.lower() in known.lower()][:8] or names[:8]
    raise ValueError(f"class {name!r} is not one of the {len(names)}; near it: {', '.join(near)}")
