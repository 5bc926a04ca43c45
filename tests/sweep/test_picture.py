"""The attack on one picture, from file to figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from defenses.architectures import build
from sweep.picture import (
    Classifier,
    attack_picture,
    checkpoint_classifier,
    read_picture,
    torchvision_classifier,
)
from sweep.picture_figure import figure, save

NAMES = ["hog", "wombat", "airliner", "sea slug"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    rows, columns = np.mgrid[0:60, 0:80]
    pixels = np.stack([128 + 100 * np.sin(a / 9) for a in (rows, columns, rows + columns)], -1)
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


@pytest.fixture
def classifier() -> Classifier:
    """Linear on the four quarters of the image: small changes of it are enough."""
    linear = nn.Linear(12, 4)
    with torch.no_grad():
        linear.weight.copy_(
            3 * torch.randn(linear.weight.shape, generator=torch.Generator().manual_seed(0))
        )
        linear.bias.zero_()
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), linear)
    return Classifier(model.eval(), NAMES, 3, 40, 32)


@pytest.mark.parametrize(
    ("method", "norm"),
    [("pgd", "linf"), ("pgd", "l2"), ("fgsm", "linf"), ("apgd", "l2"), ("square", "linf")],
)
def test_away_from_what_the_model_sees(picture, classifier, method, norm):
    x = read_picture(picture, classifier)
    assert x.shape == (1, 3, 32, 32)
    eps = 0.2 if norm == "linf" else 16.0
    result = attack_picture(x, classifier, eps=eps, norm=norm, method=method, steps=30)
    assert result.before[0][0] == result.label
    assert result.after[0][0] != result.label
    delta = (result.adversarial - x).flatten()
    assert float(delta.abs().max() if norm == "linf" else delta.norm()) <= eps + 1e-6
    curve = result.curves[result.label]
    assert curve[-1] > curve[0]
    # The last point is the loss of the picture that is returned.
    with torch.no_grad():
        loss = -classifier.model(result.adversarial).double().log_softmax(1)
    assert curve[-1] == pytest.approx(float(loss[0, NAMES.index(result.label)]), rel=1e-4)


def test_towards_a_target(picture, classifier):
    x = read_picture(picture, classifier)
    (seen, _), _, (target, _), *_ = attack_picture(x, classifier, eps=0.01, steps=1).before
    result = attack_picture(x, classifier, eps=0.3, target=target, steps=40)
    assert result.after[0][0] == target
    assert list(result.curves) == [seen, target]
    assert result.curves[target][-1] < result.curves[target][0]
    assert result.lines()[-1].startswith(f"fooled: {seen} is seen as {target} (PGD, L∞ ε = 0.3")


def test_what_is_wrong_from_the_start_is_no_success(picture, classifier):
    x = read_picture(picture, classifier)
    (seen, _), (other, _), *_ = attack_picture(x, classifier, eps=0.01, steps=1).before
    options = {"eps": 0.0, "steps": 1}
    for wrong in ({"label": other}, {"target": seen}):
        text = attack_picture(x, classifier, **options, **wrong).lines()[-1]
        assert text.startswith("wrong before any attack: ")
    with pytest.raises(ValueError, match="did you mean 2/255"):
        attack_picture(x, classifier, eps=2.0, steps=1)


def test_files(picture, classifier, tmp_path):
    x = read_picture(picture, classifier)
    result = attack_picture(x, classifier, eps=16 / 255, steps=10)
    paths = save(result, tmp_path / "out")
    assert [path.name for path in paths] == ["figure.png", "adversarial.npy", "adversarial.png"]
    assert torch.equal(torch.from_numpy(np.load(paths[1])), result.adversarial[0])
    eight_bits = np.asarray(Image.open(paths[2])) / 255
    exact = result.adversarial[0].permute(1, 2, 0).numpy()
    assert np.abs(eight_bits - exact).max() <= 0.5 / 255 + 1e-6
    titles = [axes.get_title() for axes in figure(result).axes]
    assert titles[:3] == ["original", "perturbation × 7.97", "adversarial"]  # 0.5 / (16 / 255)


def test_a_checkpoint_of_a_grey_model(picture, tmp_path):
    model = build("resnet_small", num_classes=5, in_channels=1)
    save_file(model.state_dict(), tmp_path / "best.safetensors")
    classifier = checkpoint_classifier(
        str(tmp_path / "best.safetensors"), architecture="resnet_small", image_size=8
    )
    assert classifier.class_names == ["0", "1", "2", "3", "4"]
    x = read_picture(picture, classifier)
    assert x.shape == (1, 1, 8, 8)
    result = attack_picture(x, classifier, eps=0.2, steps=5, target="3")
    assert len(save(result, tmp_path)) == 3


def test_torchvision_without_weights(picture, tmp_path):
    """The command's path through a ResNet-50, with random weights: nothing is downloaded."""
    classifier = torchvision_classifier("resnet50", weights="random")
    x = read_picture(picture, classifier)
    assert x.shape == (1, 3, 224, 224)
    result = attack_picture(x, classifier, eps=2 / 255, steps=2, target="airliner")
    assert len(result.before) == len(result.after) == 5
    assert float((result.adversarial - x).abs().max()) <= 2 / 255 + 1e-6
    assert len(save(result, tmp_path)) == 3


def test_mistakes_give_one_line(picture, classifier, tmp_path, monkeypatch):
    x = read_picture(picture, classifier)
    with pytest.raises(ValueError, match="near it: airliner"):
        attack_picture(x, classifier, eps=0.1, target="air")
    with pytest.raises(ValueError, match="method=apgd has no target"):
        attack_picture(x, classifier, eps=0.1, method="apgd", target="hog")
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        attack_picture(x, classifier, eps=0.1, steps=0)
    with pytest.raises(ValueError, match="no such file"):
        read_picture(tmp_path / "none.jpg", classifier)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match="not a picture"):
        read_picture(tmp_path / "text.jpg", classifier)
    with pytest.raises(ValueError, match=r"did you mean resnet50\?.*valid: alexnet"):
        torchvision_classifier("resnet51")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="fetch them with --download"):
        torchvision_classifier("squeezenet1_1")
