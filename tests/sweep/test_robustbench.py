"""study=robustbench with the package itself: its networks, its file layout, the real commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from sweep import zoo
from sweep.zoo import ZooModel
from tests.sweep.conftest import Launch

pytestmark = pytest.mark.zoo
LABELS = ("cifar10/Linf/Wong2020Fast", "cifar10/L2/Sehwag2021Proxy_R18")


def images() -> tuple[np.ndarray, np.ndarray]:
    """80 images of CIFAR's size whose brightness is their class."""
    labels = np.arange(80) % 10
    noise = np.random.default_rng(0).integers(0, 20, (80, 32, 32, 3))
    return (noise + 23 * labels[:, None, None, None]).astype(np.uint8), labels


def fitted(label: str) -> nn.Module:
    """The zoo's own network, its last layer fitted to the images by least squares."""
    network = zoo._entry(ZooModel.parse(label))["model"]().eval()
    pixels, labels = images()
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    seen: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda module, args, out: seen.append(args[0]))
    with torch.no_grad():
        network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
        hook.remove()
        features = torch.cat([seen[0], torch.ones(len(labels), 1)], dim=1)
        target = nn.functional.one_hot(torch.from_numpy(labels)).float()
        solution = torch.linalg.lstsq(features, target, driver="gelsd").solution
        last.weight.copy_(solution[:-1].T)
        last.bias.copy_(solution[-1])
    return network


def test_end_to_end(tmp_path: Path, launch: Launch, sweep: Launch) -> None:
    pixels, labels = images()
    np.savez(
        tmp_path / "small.npz",
        x_train=pixels[:40], y_train=labels[:40], x_test=pixels[40:], y_test=labels[40:],
    )  # fmt: skip
    study = (
        "study=robustbench", f"imported={','.join(LABELS)}", f"results_dir={tmp_path}/results",
        "dataset.name=npz", f"dataset.path={tmp_path}/small.npz", "dataset.selection_size=20",
        "dataset.train_size=10", "dataset.test_size=10", "evaluation.masking_images=0",
        "evaluation.steps=1", "tracking=none", "device=cpu",
        "measures=[prob_margin_clean,average_ce_clean,entropy_clean,param_norm,euclid_init_norm]",
    )  # fmt: skip
    refused = launch("-m", *study)
    assert refused.returncode == 2
    assert "Wong2020Fast.pt is missing: `python -m sweep prepare`" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1

    for label in LABELS:
        (path,) = zoo.files(ZooModel.parse(label), tmp_path / "results/zoo")
        path.parent.mkdir(parents=True)
        state = {f"module.{k}": v for k, v in fitted(label).state_dict().items()}
        torch.save({"state_dict": state, "epoch": 1}, path)
    prepared = sweep("prepare", *study)  # nothing to fetch: records checksums
    assert prepared.returncode == 0, prepared.stderr
    assert path.with_name(f"{path.name}.sha256").is_file()

    done = launch("-m", *study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 imported models" in done.stdout
    table = pd.read_parquet(tmp_path / "results/studies/robustbench/models.parquet")
    assert set(table["status"]) == {"done"}
    assert set(table["imported"]) == set(LABELS)
    assert set(zip(table["norm"], table["eps"], strict=True)) == {("linf", 8 / 255), ("l2", 0.5)}
    assert (table["clean_train"] > 0.5).all()  # the weights that were saved are those measured
    assert (table["clean_test"] >= table["pgd_test"]).all()
    assert table["measure/prob_margin_clean"].notna().all()
    assert table["measure/euclid_init_norm"].isna().all()
    reasons = set(table["measure/euclid_init_norm.reason"])
    assert reasons == {"the weights before training are not known"}
    assert "everything is there already" in launch("-m", *study).stdout
    report = sweep("report", "robustbench", f"--results-dir={tmp_path}/results")
    assert report.returncode == 0, report.stdout + report.stderr
    compared = sweep("compare", "robustbench", "robustbench", f"--results-dir={tmp_path}/results")
    assert compared.returncode == 0, compared.stdout + compared.stderr

    path.write_bytes(path.read_bytes()[:-1000])
    corrupt = launch("-m", *study, "measures=[param_norm,ece]")
    assert corrupt.returncode == 1
    assert "has changed since it was fetched" in corrupt.stdout + corrupt.stderr
