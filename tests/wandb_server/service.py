"""A real W&B-compatible server (openwandb) on loopback, and what it says it holds."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

API_KEY = "local" + "0" * 40  # the key that openwandb creates for its first user
START_TIMEOUT_S = 60


class Service:
    """The server process, reachable at ``url``."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "openwandb", "serve"),
                *("--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error"),
            ],
            env={**os.environ, "OPENWANDB_DATA_DIR": str(folder), "HOME": str(folder)},
            stdout=(folder / "server.log").open("ab"),
            stderr=subprocess.STDOUT,
        )
        self._wait()
        self._weaken_key_hash()
        self._held_open = self._hold_database_open()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.get("/api/v2/projects")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = (self.folder / "server.log").read_text()
                    raise RuntimeError(f"openwandb did not start:\n{log}") from None
                time.sleep(0.1)

    def _weaken_key_hash(self) -> None:
        """The server checks bcrypt at each request, a quarter of a second each: make it cheap."""
        import bcrypt

        cheap = bcrypt.hashpw(API_KEY.encode(), bcrypt.gensalt(4)).decode()
        with sqlite3.connect(self.folder / "openwandb.db", timeout=30) as database:
            database.execute("UPDATE api_keys SET key_hash = ?", (cheap,))

    def _hold_database_open(self) -> sqlite3.Connection:
        """The server opens and closes its database at each query, and SQLite tidies up whenever
        the last one closes: with one held open, requests take a fraction of the time."""
        database = sqlite3.connect(self.folder / "openwandb.db", check_same_thread=False)
        database.execute("SELECT COUNT(*) FROM runs").fetchone()
        return database

    def forget_runs(self) -> None:
        with sqlite3.connect(self.folder / "openwandb.db", timeout=30) as database:
            for table in ("runs", "metrics", "system_metrics", "files", "artifacts"):
                database.execute(f"DELETE FROM {table}")

    def make_public(self, project: str) -> None:
        """Let a browser without a session look at a project."""
        with sqlite3.connect(self.folder / "openwandb.db", timeout=30) as database:
            query = "UPDATE projects SET visibility = 'public' WHERE name = ?"
            database.execute(query, (project,))

    def get(self, path: str) -> Any:
        request = urllib.request.Request(self.url + path, headers={"X-WANDB-API-KEY": API_KEY})
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def run_ids(self) -> set[str]:
        with sqlite3.connect(self.folder / "openwandb.db", timeout=30) as database:
            return {name for (name,) in database.execute("SELECT run_id FROM runs")}

    def run(self, model_id: str) -> dict[str, Any]:
        """What the server's own interface shows of a run: config, summary, tags, state."""
        run: dict[str, Any] = self.get(f"/api/v2/runs/{model_id}")["run"]
        config = {k: v["value"] for k, v in run["config"].items() if k != "_wandb"}
        return {"config": config, **{k: run[k] for k in ("summary", "tags", "state")}}

    def history(self, model_id: str) -> list[dict[str, float]]:
        """Numeric history as the server stored it: one entry per (step, key), none merged."""
        steps: dict[int, dict[str, float]] = {}
        for key, points in self.get(f"/api/v2/runs/{model_id}/metrics")["metrics_by_key"].items():
            assert len({p["step"] for p in points}) == len(points), f"{key}: a step comes twice"
            for point in points:
                steps.setdefault(point["step"], {})[key] = point["value"]
        return [steps[step] for step in sorted(steps)]

    def everything(self) -> dict[str, Any]:
        """All runs with their histories, for comparing two moments or two servers."""
        return {i: (self.run(i), self.history(i)) for i in sorted(self.run_ids())}

    def cpu_seconds(self) -> float:
        """Processor time the server has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._held_open.close()
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
