"""The server's own pages, as a user's browser shows them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sweep.tracking import TrackingSettings
from sweep.tracking.sync import sync
from tests.sweep.tracking.fabricate import STUDY, job, study
from tests.wandb_server.service import Service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.usefixtures("logged_in")
def test_run_and_project_pages_show_the_study(
    service: Service, settings: TrackingSettings, tmp_path: Path
) -> None:
    store = study(tmp_path / "results", 2, settings)
    assert sync(store, STUDY, settings).ok
    service.make_public(settings.project)
    model_id = job(1, settings).model_id("best")

    project = rendered(f"{service.url}/projects/default/{settings.project}", tmp_path)
    assert all(job(n, settings).model_id(c) in project for n in (0, 1) for c in ("last", "best"))

    run = rendered(f"{service.url}/runs/default/{settings.project}/{model_id}", tmp_path)
    for shown in (model_id, "measure/x_grad_norm", "pgd_selection", "row_digest", "method:at"):
        assert shown in run, shown


def rendered(url: str, folder: Path) -> str:
    """The page's document after its scripts have run."""
    assert CHROMIUM is not None
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=8000", "--dump-dom", url),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
