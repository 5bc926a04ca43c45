"""One server for the session; each test has a project of its own and logs in at its own address."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep import tracking
from sweep.tracking import TrackingSettings
from tests.wandb_server.proxy import HostileProxy
from tests.wandb_server.service import API_KEY, Service

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    installed = importlib.util.find_spec("openwandb") is not None
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.wandb_server)
            if not installed:
                item.add_marker(pytest.mark.skip(reason="needs openwandb, see .ci/wandb-server.sh"))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A fresh server: openwandb knows a run by its id alone, whatever its project."""
    service = Service(tmp_path / "server")
    yield service
    service.stop()


@pytest.fixture
def proxy(service: Service) -> HostileProxy:
    return HostileProxy(service.port, service.folder / "openwandb.db")


@pytest.fixture
def logged_in(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a user who is logged in at the server, in an empty home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_BASE_URL", service.url)
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    yield
    tracking.drain(0.0)


@pytest.fixture
def settings() -> TrackingSettings:
    return TrackingSettings(jitter_s=0.0)
