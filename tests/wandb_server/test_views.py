"""Dashboards, the analysis run and cleaning up, each through the real client library."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sweep import table, tracking
from sweep.tracking import TrackingSettings
from sweep.tracking.analysis_run import publish_analysis, run_id
from sweep.tracking.cleanup import remove_synced
from sweep.tracking.dashboard import dashboard
from sweep.tracking.server import ServiceError
from sweep.tracking.sync import sync
from tests.sweep.tracking.fabricate import STUDY, job, study
from tests.wandb_server.proxy import HostileProxy
from tests.wandb_server.service import Service


@pytest.fixture
def through_proxy(
    logged_in: None, proxy: HostileProxy, monkeypatch: pytest.MonkeyPatch
) -> HostileProxy:
    monkeypatch.setenv("WANDB_BASE_URL", proxy.url)
    return proxy


def test_views_are_created_once_and_then_updated(
    through_proxy: HostileProxy, settings: TrackingSettings, tmp_path: Path
) -> None:
    pytest.importorskip("wandb_workspaces")
    store = study(tmp_path / "results", 8, settings)
    models = table.collect(store, STUDY)
    models["status"] = "done"
    first = dashboard(store, STUDY, settings, models)
    assert len(first) == len(through_proxy.views) == 1 + 1 + 4  # all, architecture, methods
    assert {view.title for view in first} >= {"small: all models", "small: method trades"}
    assert all(view.url.count("nw=") == 1 for view in first)
    models["measure/my_measure"] = 0.5
    assert dashboard(store, STUDY, settings, models) == first
    assert len(through_proxy.views) == len(first)
    assert all("measure/my_measure" in view["spec"] for view in through_proxy.views.values())
    assert list((store.study(STUDY) / "wandb" / "tmp").iterdir()) == []


def test_a_service_without_views_is_told_of_in_one_line(
    logged_in: None, settings: TrackingSettings, tmp_path: Path
) -> None:
    pytest.importorskip("wandb_workspaces")
    store = study(tmp_path / "results", 2, settings)
    with pytest.raises(ServiceError, match="did not take the view 'small: all models'") as caught:
        dashboard(store, STUDY, settings, table.collect(store, STUDY).assign(status="done"))
    assert "\n" not in str(caught.value)


def test_analysis_is_one_run_however_often_it_is_published(
    through_proxy: HostileProxy, service: Service, settings: TrackingSettings, tmp_path: Path
) -> None:
    store = study(tmp_path / "results", 2, settings)
    with pytest.raises(ValueError, match="sweep report small"):
        publish_analysis(store, STUDY, settings)
    report = store.study(STUDY) / "report"
    (report / "tables").mkdir(parents=True)
    (report / "figures").mkdir()
    (report / "index.html").write_text("<p>the verdict</p>")
    coefficients = report / "tables" / "coefficients_all.csv"
    coefficients.write_text("measure,tau,psi\nx_grad_norm,0.25,0.5\npath_norm,,-1\n")
    Image.new("RGB", (8, 8)).save(report / "figures" / "gap.png")

    assert publish_analysis(store, STUDY, settings)
    assert not publish_analysis(store, STUDY, settings)
    coefficients.write_text("measure,tau,psi\nx_grad_norm,0.75,0.5\n")
    assert publish_analysis(store, STUDY, settings)

    assert service.run_ids() == {run_id(STUDY)}
    held = service.run(run_id(STUDY))
    assert held["summary"]["coefficients_all/x_grad_norm/tau"] == 0.75
    assert held["state"] == "finished"
    files = {f["name"] for f in service.get(f"/api/v1/runs/{run_id(STUDY)}/files")["files"]}
    for key in ("html/report", "html/tables/coefficients_all", "images/figures/gap"):
        assert any(name.startswith(f"media/{key}") for name in files), files
    assert any(name.startswith("media/images/curves/pgd_selection") for name in files)


@pytest.mark.usefixtures("logged_in")
def test_only_what_the_service_holds_is_deleted(
    service: Service, settings: TrackingSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = study(tmp_path / "results", 2, settings)
    with monkeypatch.context() as offline:
        offline.setenv("WANDB_MODE", "offline")
        for number in range(2):
            job_ = job(number, settings)
            row = store.read_row(job_.model_id("last"))
            assert row is not None
            path = store.training(job_.training_id) / "history.jsonl"
            tracking.write_run(settings, store.study(STUDY), STUDY, row, path, {})
        tracking.drain(30)
    folder = store.study(STUDY) / "wandb"
    assert len(list(folder.glob("offline-run-*"))) == 2
    assert remove_synced(store, STUDY, settings).removed == []
    assert sync(store, STUDY, settings).ok
    changed = store.read_row(job(1, settings).model_id("last"))
    assert changed is not None
    changed["metrics"]["gap"]["value"] = 0.5
    store.write_row(changed)
    dry = remove_synced(store, STUDY, settings, dry_run=True)
    assert len(list(folder.glob("offline-run-*"))) == 2
    report = remove_synced(store, STUDY, settings)
    assert report.removed == dry.removed
    assert report.freed_bytes > 0
    assert report.kept == [changed["model_id"]]
    assert [p.name.endswith(changed["model_id"]) for p in folder.glob("offline-run-*")] == [True]
