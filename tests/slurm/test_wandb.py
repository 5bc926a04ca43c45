"""Slurm, the row and W&B say the same of a training that crashed and of one that did not."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from sweep.tracking.offline import read_records
from sweep.tracking.settings import wandb_folder
from tests.slurm.cluster import Cluster
from tests.slurm.study import ON_SLURM, Study
from tests.wandb_server.service import API_KEY, Service

pytestmark = pytest.mark.slurm
needs_server = pytest.mark.skipif(
    importlib.util.find_spec("openwandb") is None, reason="needs openwandb, see .ci/wandb-server.sh"
)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("server"))
    yield service
    service.stop()


def run(cluster: Cluster, results: Path) -> tuple[Study, dict[str, str]]:
    """One training that crashes and one that does not; what Slurm's accounting says of both."""
    study = Study(results, "seen", ("method=standard", "seed=0,1"))
    study.launch(
        *ON_SLURM, "tracking=wandb", "tracking.jitter_s=0", "+hydra.launcher.sbatch.hold=true"
    )
    broken = study.training(0) / "checkpoint.pt"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"not a checkpoint")
    jobs = {line: study.slurm_job(line) or "" for line in range(2)}
    cluster.run("scontrol", "release", *jobs.values())
    cluster.drain(seconds=180)
    models = {line: job.model_id("last") for line, job in study.jobs().items()}
    return study, {models[line]: cluster.history(job)[-1] for line, job in jobs.items()}


def statuses(study: Study) -> dict[str, str]:
    return {model: row["status"] for model, row in study.rows().items()}


def test_offline(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    study, slurm = run(cluster, tmp_path / "results")
    exits = {}
    for folder in wandb_folder(study.folder).glob("offline-run-*"):
        record = wandb_internal_pb2.Record()
        for content in read_records(folder):
            record.ParseFromString(content)
            if record.WhichOneof("record_type") == "exit":
                exits[folder.name.split("-", 3)[3]] = record.exit.exit_code
    failed, done = (study.jobs()[line].model_id("last") for line in range(2))
    assert slurm == {failed: "FAILED", done: "COMPLETED"}
    assert statuses(study) == {failed: "failed", done: "done"}
    assert exits == {failed: 1, done: 0}


@needs_server
@pytest.mark.wandb_server
def test_online(
    cluster: Cluster, tmp_path: Path, server: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    study, slurm = run(cluster, tmp_path / "results")
    failed, done = (study.jobs()[line].model_id("last") for line in range(2))
    assert slurm == {failed: "FAILED", done: "COMPLETED"}
    assert statuses(study) == {failed: "failed", done: "done"}
    held = {model: server.run(model) for model in (failed, done)}
    # this server calls every closed run finished, whatever its exit status (docs/wandb.md)
    assert {model: run["summary"]["status"] for model, run in held.items()} == {
        failed: "failed",
        done: "done",
    }
    assert held[failed]["summary"]["reason"] == study.rows()[failed]["reason"]
    assert held[done]["summary"]["row_digest"] == study.digests()[done]
