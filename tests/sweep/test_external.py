"""Checkpoints from elsewhere: every layout gives the same logits, and none runs code."""

from __future__ import annotations

import os
import re
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from defenses.architectures import build
from defenses.datasets import load
from defenses.spec import DatasetSpec
from sweep.external import load_model, make, read_normalisation, read_weights, require_fit

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)


def network(architecture):
    """One of our networks with batch norm statistics that matter."""
    model = build(architecture, num_classes=7, normalisation=(MEAN, STD))
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def elsewhere(state, *, wide):
    """Our keys as the CIFAR networks of kuangliu (ResNet) and bearpaw (WRN) name them."""
    renamed = {}
    for key, value in state.items():
        if key.startswith("1."):
            name = key[2:]
            for stage in range(4):
                layer = f"block{stage + 1}.layer." if wide else f"layer{stage + 1}."
                name = re.sub(rf"^stages\.{stage}\.", layer, name)
            if wide:
                name = re.sub(r"\.shortcut\.", ".convShortcut.", name)
                name = re.sub(r"^bn\.", "bn1.", name)
                name = re.sub(r"^linear\.", "fc.", name)
            renamed[name] = value
    return renamed


def layouts(state, *, wide):
    plain = elsewhere(state, wide=wide)
    mean, std = (state[f"0.{name}"].flatten() for name in ("mean", "std"))
    return {
        "own": state,
        "MAIR": {
            "rmodel": {
                "n_classes": torch.tensor(7),
                "model.0.mean": mean,
                "model.0.std": std,
                **{f"model.1.{key}": value for key, value in plain.items()},
            },
            "optimizer": {"state": {0: torch.zeros(3)}},
        },
        "MAIR, parallel": {
            "rmodel": {
                "n_classes": torch.tensor(7),
                "mean": mean,
                "std": std,
                **{f"model.module.{key}": value for key, value in plain.items()},
            }
        },
        "RobustBench": {
            "state_dict": {
                "module.mu": mean.view(1, -1, 1, 1),
                "module.sigma": std.view(1, -1, 1, 1),
                **{f"module.{key}": value for key, value in plain.items()},
            },
            "epoch": 200,
        },
    }


@pytest.mark.parametrize("architecture", ["resnet_small", "wrn10_1"])
@pytest.mark.parametrize("layout", ["own", "MAIR", "MAIR, parallel", "RobustBench"])
def test_every_layout_gives_the_same_logits(tmp_path, architecture, layout):
    model = network(architecture)
    path = tmp_path / "weights.pth"
    torch.save(layouts(model.state_dict(), wide=architecture.startswith("wrn"))[layout], path)
    loaded = load_model(str(path), architecture=architecture)
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert not loaded.training
    assert torch.allclose(loaded(x), model(x), atol=1e-5)
    assert model(x).std() > 1e-3


def test_safetensors_and_given_normalisation(tmp_path):
    model = network("resnet_small")
    plain = {k: v.clone() for k, v in elsewhere(model.state_dict(), wide=False).items()}
    save_file(plain, tmp_path / "weights.safetensors")
    x = torch.rand(4, 3, 16, 16)
    source = str(tmp_path / "weights.safetensors")
    loaded = load_model(source, architecture="resnet_small", normalisation=(MEAN, STD))
    assert torch.allclose(loaded(x), model(x), atol=1e-5)
    without = load_model(source, architecture="resnet_small", normalisation="none")
    assert not torch.allclose(without(x), model(x), atol=1e-3)
    with pytest.raises(ValueError, match=r"normalised .*; give --normalisation, none, .*dataset"):
        load_model(source, architecture="resnet_small")
    with pytest.raises(ValueError, match="1 means and 1 stds for 3 channels"):
        load_model(source, architecture="resnet_small", normalisation=((0.5,), (0.2,)))


def test_normalisation_as_text():
    assert read_normalisation("none") == "none"
    assert read_normalisation("0.49,0.48,0.45/0.25,0.24,0.26") == (MEAN, STD)
    assert read_normalisation("0.13/3e-1") == ((0.13,), (0.3,))
    for text in ("imagenet", "0.5,0.5/0.2", "0.5/0", "0.5/-1", "0.5", "0.5/nan", "/"):
        with pytest.raises(ValueError, match="is not valid; choose none, numbers as mean/std: 0"):
            read_normalisation(text)


class RunsCode:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_checkpoint_that_runs_code_is_refused(tmp_path, monkeypatch):
    trace = tmp_path / "trace"
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "extra": RunsCode(trace)}, path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # must make no difference
    with pytest.raises(ValueError, match=r"evil\.pt is refused"):
        load_model(str(path), architecture="resnet18")
    assert not trace.exists()
    torch.load(path, weights_only=False)  # the file is what it claims to be
    assert trace.exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [("page.pt", b"<html>Quota exceeded</html>"), ("empty.pt", b""), ("cut.safetensors", b"12345")],
)
def test_damaged_files_give_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="damaged") as raised:
        read_weights(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "weights.pt"
    state = network("resnet_small").state_dict()
    torch.save(state, path)
    with pytest.raises(ValueError, match="give --architecture"):
        load_model(str(path))
    with pytest.raises(ValueError, match="resnet19"):
        load_model(str(path), architecture="resnet19")
    with pytest.raises(ValueError, match=r"does not fit.*lacks"):
        load_model(str(path), architecture="resnet_medium")
    torch.save({**state, "1.surprise": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"no place for 1\.surprise"):
        load_model(str(path), architecture="resnet_small")
    with pytest.raises(ValueError, match="no such file"):
        load_model(str(tmp_path / "none.pt"), architecture="resnet_small")
    torch.save({"epoch": 3}, path)
    with pytest.raises(ValueError, match="holds no state dict"):
        load_model(str(path), architecture="resnet_small")


def npz_data(tmp_path, *, channels):
    """Images of 8x8 pixels and three classes."""
    labels = np.arange(60) % 3
    shape = (60, 8, 8, 3) if channels == 3 else (60, 8, 8)
    pixels = np.zeros(shape, np.uint8)
    parts = {"x_train": pixels, "y_train": labels, "x_test": pixels, "y_test": labels}
    path = tmp_path / f"{channels}.npz"
    np.savez(path, **parts)
    spec = DatasetSpec(name="npz", path=str(path), selection_size=10)
    return load(spec, extra_data=False, cache=tmp_path)


def test_a_network_for_other_images_or_classes_is_refused(tmp_path):
    colour, grey = (npz_data(tmp_path, channels=c) for c in (3, 1))
    fitting = build("resnet_small", num_classes=3).eval()
    require_fit(fitting, colour, "it")
    with pytest.raises(ValueError, match="it takes images of 3 channels; those of npz have 1"):
        require_fit(fitting, grey, "it")
    with pytest.raises(ValueError, match="it tells 100 classes, npz has 3"):
        require_fit(build("resnet_small", num_classes=100).eval(), colour, "it")
    with pytest.raises(ValueError, match="it does not take the images of npz: "):
        require_fit(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), colour, "it")
    with pytest.raises(ValueError, match=r"not return a row of logits.*\(1, 3, 8, 8\) for one"):
        require_fit(nn.Identity(), colour, "it")


def test_factories(tmp_path, monkeypatch):
    (tmp_path / "their_models.py").write_text(
        "from torch import nn\n"
        "def tiny():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))\n"
        "def number():\n    return 3\n"
        "def needs(size):\n    return nn.Linear(size, 3)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = load_model("their_models:tiny")
    x = torch.rand(2, 3, 2, 2)
    assert model(x).shape == (2, 3)
    wrapped = {f"module.{key}": value for key, value in model.state_dict().items()}
    torch.save({"net": wrapped}, tmp_path / "x.pt")
    filled = load_model(str(tmp_path / "x.pt"), architecture="their_models:tiny")
    assert torch.equal(filled[1].weight, model[1].weight)
    mean, std = (torch.tensor(numbers).view(3, 1, 1) for numbers in (MEAN, STD))
    behind = load_model(
        str(tmp_path / "x.pt"), architecture="their_models:tiny", normalisation=(MEAN, STD)
    )
    assert torch.allclose(behind(x), model((x - mean) / std))
    with pytest.raises(ValueError, match="returned a int"):
        make("their_models:number")
    with pytest.raises(ValueError, match=r"their_models:needs: TypeError: needs\(\) missing 1"):
        make("their_models:needs")
    with pytest.raises(ValueError, match="has no attribute 'absent'"):
        make("their_models:absent")
    sys.modules.pop("their_models")
