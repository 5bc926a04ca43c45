"""RobustBench's zoo: files of its layout go in, anything wrong gives one line."""

from __future__ import annotations

import sys

import pytest
import torch

from defenses.architectures import build
from sweep import zoo
from sweep.zoo import ZooModel


def served(package, content):
    """Let ``gdown.download`` deliver ``content`` (a state dict or bytes)."""

    def download(*, id, output, resume, quiet):
        package.downloads.append((id, output))
        assert resume
        if isinstance(content, bytes):
            with open(output, "wb") as file:
                file.write(content)
        else:
            torch.save(content, output)

    package.gdown.download = download


def test_prepare_then_load(package, tmp_path):
    model = ZooModel("One")
    weights = package.make().state_dict()
    served(package, weights)
    assert zoo.missing([model], tmp_path) == [tmp_path / "cifar10/Linf/One.pt"]
    (path,) = zoo.prepare(model, tmp_path)
    assert path == tmp_path / "cifar10/Linf/One.pt"
    assert package.downloads == [("id-one", f"{path}.part")]
    assert {p.name for p in path.parent.iterdir()} == {".lock", "One.pt", "One.pt.sha256"}
    assert zoo.missing([model], tmp_path) == []
    loaded = zoo.load(model, tmp_path)
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[key], value) for key, value in weights.items())

    zoo.prepare(model, tmp_path)  # nothing to do: nothing fetched
    assert len(package.downloads) == 1


def test_an_ensemble_has_several_files(package, tmp_path):
    served(package, package.make().state_dict())
    paths = zoo.prepare(ZooModel("Three"), tmp_path)
    assert [path.name for path in paths] == [f"Three.pt_m{i}.pt" for i in range(3)]


def test_files_laid_there_by_hand_are_used(package, tmp_path):
    path = tmp_path / "cifar10/Linf/One.pt"
    path.parent.mkdir(parents=True)
    torch.save(package.make().state_dict(), path)
    assert isinstance(zoo.load(ZooModel("One"), tmp_path), torch.nn.Module)


def one_line(raised):
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_missing_changed_and_unknown_models(package, tmp_path):
    model = ZooModel("One")
    with pytest.raises(ValueError, match=r"One\.pt is missing.*prepare") as raised:
        zoo.load(model, tmp_path)
    assert "cifar10/Linf/One" in one_line(raised)
    served(package, package.make().state_dict())
    (path,) = zoo.prepare(model, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="has changed since it was fetched") as raised:
        zoo.load(model, tmp_path)
    one_line(raised)
    with pytest.raises(ValueError, match="has no cifar10/Linf/on; it has: One"):
        zoo.load(ZooModel("on"), tmp_path)
    with pytest.raises(ValueError, match="comes from timm"):
        zoo.load(ZooModel("Timm"), tmp_path)
    with pytest.raises(ValueError, match="cifar10, cifar100, imagenet"):
        ZooModel("One", dataset="mnist")


def test_an_error_page_never_becomes_a_model(package, tmp_path):
    served(package, b"<html>Quota exceeded</html>")
    with pytest.raises(ValueError, match="damaged") as raised:
        zoo.prepare(ZooModel("One"), tmp_path)
    one_line(raised)
    assert [p.name for p in (tmp_path / "cifar10/Linf").iterdir()] == [".lock"]


def test_weights_of_another_network_are_named(package, tmp_path):
    path = tmp_path / "cifar10/Linf/One.pt"
    path.parent.mkdir(parents=True)
    torch.save(build("wrn10_1", num_classes=10).state_dict(), path)
    with pytest.raises(ValueError, match="the weights do not fit") as raised:
        zoo.load(ZooModel("One"), tmp_path)
    one_line(raised)


def test_no_network(package, tmp_path):
    def download(**_):
        raise ConnectionError("no route\nto host")

    package.gdown.download = download
    with pytest.raises(ValueError, match="could not be fetched: no route to host"):
        zoo.prepare(ZooModel("One"), tmp_path)


@pytest.mark.zoo
def test_the_package_itself(tmp_path):
    """With RobustBench installed: its own network, in its own layout, gives its own logits."""
    name = "Rade2021Helper_R18_extra"
    (path,) = zoo.files(ZooModel(name), tmp_path)  # imports the package
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    entry = model_dicts[BenchmarkDataset("cifar10")][ThreatModel("Linf")][name]
    network = entry["model"]().eval()
    path.parent.mkdir(parents=True)
    state = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state}, path)
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(zoo.load(ZooModel(name), tmp_path)(x), network(x))


def test_without_the_package_one_line_says_what_to_install(monkeypatch, tmp_path):
    for name in ("robustbench", "robustbench.model_zoo", "autoattack"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match="robustbench is not installed here"):
        zoo.files(ZooModel("One"), tmp_path)
