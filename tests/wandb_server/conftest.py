"""One server for the session, emptied before each test."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweep.tracking import TrackingSettings, live
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


@pytest.fixture(scope="session")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("server"))
    yield service
    service.stop()


@pytest.fixture
def service(running_service: Service) -> Service:
    """An empty server."""
    running_service.forget_runs()
    return running_service


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
    if live._handle is not None:
        live._handle.kill()
        live._handle = None


@pytest.fixture
def settings() -> TrackingSettings:
    return TrackingSettings(jitter_s=0.0)
