"""Models from elsewhere: anybody's checkpoint, or anything that an importable function returns.

Weights are read without running code. The layouts of this project, of MAIR and of RobustBench (the
CIFAR ResNets and wide ResNets that descend from kuangliu's and bearpaw's repositories) fit the
architectures here; for every other network name the function that builds it.
"""

from __future__ import annotations

import importlib
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from defenses.architectures import build
from defenses.architectures.layers import Normalisation, Normalise
from defenses.datasets import Data, to_float
from defenses.spec import require
from sweep.convert import number

State = dict[str, Tensor]
GivenNormalisation = Normalisation | Literal["none"]

# Where training code puts a state dict inside its checkpoint, in the order they are looked for.
CONTAINERS = ("rmodel", "state_dict", "model_state_dict", "model", "net", "last")
PREFIXES = ("module.", "model.", "rmodel.")  # left by DataParallel and by wrappers
NOT_WEIGHTS = re.compile(r"(^|\.)(n_classes|num_batches_tracked)$|^sub_block1\.")
NORMALISATIONS = (
    "none, numbers as mean/std: 0.49,0.48,0.45/0.25,0.24,0.26, or, of `sweep measure`, dataset: "
    "mean and std of the training images of dataset=..."
)
NORMALISATION = {"mean": "mean", "std": "std", "mu": "mean", "sigma": "std"}

# Names of the same layers in the repositories that MAIR's and RobustBench's networks come from.
RESNET_NAMES = (
    (r"^layer(\d+)\.", lambda m: f"stages.{int(m[1]) - 1}."),
    (r"\.downsample\.", lambda m: ".shortcut."),
    (r"^fc\.", lambda m: "linear."),
)
WRN_NAMES = (
    (r"^block(\d+)\.layer\.", lambda m: f"stages.{int(m[1]) - 1}."),
    (r"\.(convShortcut|shortcut\.0)\.", lambda m: ".shortcut."),
    (r"^bn1\.", lambda m: "bn."),
    (r"^fc\.", lambda m: "linear."),
)


def load_model(
    source: str,
    *,
    architecture: str | None = None,
    normalisation: GivenNormalisation | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """The model that ``source`` names, for images in [0, 1], in eval mode on ``device``.

    ``source`` is a factory ``package.module:function`` called without arguments, or a file of
    weights (.safetensors, or anything ``torch.save`` wrote). Weights need ``architecture``: one of
    ``defenses.architectures`` or a factory of the network. ``normalisation`` is what the network
    was trained with: mean and std per channel, or ``"none"`` for images as they are; None: what the
    weights carry or, of a factory, what its network does by itself. ``ValueError`` in one line for
    what is missing, unreadable or does not fit, and for weights that carry no normalisation where
    none is given.
    """
    if _is_factory(source):
        return _normalised(make(source), normalisation).to(device).eval()
    state = read_weights(Path(source))
    require(
        architecture is not None,
        f"{source}: weights alone do not say which network they belong to; give --architecture, "
        "a name like resnet18 or wrn28_10, or a factory package.module:function",
    )
    assert architecture is not None
    if _is_factory(architecture):
        model = make(architecture)
        _fill(model, _unwrapped(state, model), source)
        model = _normalised(model, normalisation)
    else:
        model = _own_network(architecture, state, normalisation, source)
    return model.to(device).eval()


def read_normalisation(text: str) -> GivenNormalisation:
    """``none``, or mean and std of each channel as ``0.49,0.48,0.45/0.25,0.24,0.26``.

    ``ValueError`` with these forms for anything else.
    """
    if text == "none":
        return "none"
    mean, _, std = text.partition("/")
    try:
        parts = [tuple(number("normalisation", n) for n in part.split(",")) for part in (mean, std)]
    except ValueError:
        parts = [(), ()]
    require(
        len(parts[0]) == len(parts[1]) > 0 and all(s > 0 for s in parts[1]),
        f"normalisation={text!r} is not valid; choose {NORMALISATIONS}",
    )
    return parts[0], parts[1]


def _normalised(model: nn.Module, normalisation: GivenNormalisation | None) -> nn.Module:
    """A factory's network behind the normalisation that is given."""
    if normalisation is None or normalisation == "none":
        return model
    return nn.Sequential(Normalise(*normalisation), model)


def require_fit(network: nn.Module, data: Data, name: str) -> None:
    """``ValueError`` unless ``network``, on the device of ``data``, is one for its images."""
    for module in network.modules():
        if isinstance(module, Normalise):  # one of three channels would turn grey into colour
            channels = module.mean.numel()
            require(
                channels == data.in_channels,
                f"{name} takes images of {channels} channels; those of {data.name} have "
                f"{data.in_channels}",
            )
    with torch.no_grad():
        try:
            logits = network(to_float(data.test.images[:1]))
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{name} does not take the images of {data.name}: {reason}") from error
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else None
    require(
        shape is not None and len(shape) == 2 and shape[0] == 1,
        f"{name} does not return a row of logits for each image, but "
        f"{type(logits).__name__ if shape is None else shape} for one",
    )
    assert shape is not None
    require(
        shape[1] == data.num_classes,
        f"{name} tells {shape[1]} classes, {data.name} has {data.num_classes}",
    )


def make(factory: str) -> nn.Module:
    """Call ``package.module:function``, which must return an ``nn.Module``."""
    module_name, _, function_name = factory.partition(":")
    try:
        function: Callable[[], Any] = getattr(importlib.import_module(module_name), function_name)
        model = function()
    except Exception as error:  # somebody's code: whatever it is, it is said
        kind = "" if isinstance(error, (ImportError, AttributeError)) else type(error).__name__
        raise ValueError(f"{factory}: {f'{kind}: ' if kind else ''}{error}") from error
    require(
        isinstance(model, nn.Module),
        f"{factory} returned a {type(model).__name__}, not a torch.nn.Module",
    )
    assert isinstance(model, nn.Module)
    return model


def read_weights(path: Path) -> State:
    """The state dict in a file, wherever in it that is. Nothing in the file is executed."""
    require(path.is_file(), f"{path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it holds more than tensors, or is damaged, and would run code "
            "to be loaded. Where you trust it, save model.state_dict() from it as .safetensors"
        ) from error
    except (RuntimeError, EOFError, zipfile.BadZipFile, SafetensorError, ValueError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged or no checkpoint: {first_line}") from error
    return _find_state(content, path)


def _find_state(content: object, path: Path) -> State:
    while isinstance(content, Mapping):
        tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
        inner = next((content[k] for k in CONTAINERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            if tensors:
                return tensors
            break
        content = inner
    raise ValueError(f"{path} holds no state dict; looked for tensors and {', '.join(CONTAINERS)}")


def _is_factory(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text) is not None


def _own_network(
    architecture: str,
    state: State,
    normalisation: GivenNormalisation | None,
    source: str,
) -> nn.Module:
    """One of this project's networks, filled from any of the layouts that fit it."""
    if "0.mean" not in state or "1.linear.weight" not in state:
        state = translate(state, wide=architecture.startswith("wrn"))
    require(
        "1.linear.weight" in state and "1.conv1.weight" in state,
        f"{source}: no layout known for architecture={architecture}; "
        "give a factory package.module:function that builds its network",
    )
    require(
        normalisation is not None or {"0.mean", "0.std"} <= state.keys(),
        f"{source} does not say how the images were normalised that it was trained on; "
        f"give --normalisation, {NORMALISATIONS}",
    )
    model = build(
        architecture,
        num_classes=state["1.linear.weight"].shape[0],
        in_channels=state["1.conv1.weight"].shape[1],
        normalisation=None if normalisation == "none" else normalisation,
    )
    own = model.state_dict()
    for key in ("0.mean", "0.std"):
        given = own[key] if normalisation is not None else state[key]
        state[key] = given.reshape(own[key].shape)
    _fill(model, state, source)
    return model


def translate(state: Mapping[str, Tensor], *, wide: bool) -> State:
    """Another project's keys in the names of this project's ResNet or, if ``wide``, WRN."""
    translated: State = {}
    for key, value in _without_prefixes(state).items():
        if NOT_WEIGHTS.search(key):
            continue
        stem = key.removeprefix("0.")
        if stem in NORMALISATION:
            translated[f"0.{NORMALISATION[stem]}"] = value
            continue
        name = key.removeprefix("1.")
        for pattern, replacement in WRN_NAMES if wide else RESNET_NAMES:
            name = re.sub(pattern, replacement, name)
        translated[f"1.{name}"] = value
    return translated


def _without_prefixes(state: Mapping[str, Tensor]) -> State:
    """Keys without the prefixes that wrapping a network leaves, however often it was wrapped."""
    pattern = re.compile(f"^({'|'.join(map(re.escape, PREFIXES))})+")
    return {pattern.sub("", key): value for key, value in state.items()}


def _unwrapped(state: State, model: nn.Module) -> State:
    """``state`` as it is if its keys are the model's, else without the prefixes of wrappers."""
    own = model.state_dict().keys()
    return state if state.keys() & own else _without_prefixes(state)


def _fill(model: nn.Module, state: State, source: str) -> None:
    """Load every weight, or ``ValueError``; only the counters of batch norm may be absent."""
    own = model.state_dict()
    ignored = {key for key in own if key.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - state.keys() - ignored)
    surplus = sorted(k for k in state.keys() - own.keys() if not NOT_WEIGHTS.search(k))
    shapes = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    for problem, keys in (
        ("lacks", missing), ("has no place for", surplus), ("has another shape for", shapes)
    ):  # fmt: skip
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        subject = "the file" if problem == "lacks" else "the network"
        require(
            not keys,
            f"{source} does not fit the network: {subject} {problem} {', '.join(keys[:3])}{more}",
        )
    model.load_state_dict({**own, **{k: v for k, v in state.items() if k in own}})
