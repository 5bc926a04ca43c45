"""A proxy before the W&B server that misbehaves as told: slow, 429, 500, 401, dropped, gone.

It also fills in what openwandb always reports as 0 and null, and W&B does not: how many lines a
run's history has, and its last one. The client needs both to continue a run. And it keeps
workspace views, which openwandb does not know: one per (project, name), as the mutation's
definition in wandb-workspaces implies. Whether W&B itself agrees cannot be shown here.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

Mood = Literal["good", "slow", "busy", "error", "drop", "silent", "denied"]


class HostileProxy:
    """Passes requests on to ``upstream_port`` while its ``mood`` is good."""

    def __init__(self, upstream_port: int, database: Path) -> None:
        self.mood: Mood = "good"
        self.moods_seen: Counter[str] = Counter()  # requests by the mood they met
        self.views: dict[str, dict[str, Any]] = {}  # by id
        self._upstream = upstream_port
        self.database = database
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def vanish(self) -> None:
        """Nothing listens at the address any more."""
        self._server.shutdown()
        self._server.server_close()

    def _count_history(self, answer: Any, run_id: str | None) -> None:
        """Fill in the history's length and end wherever a GraphQL answer asks for them."""
        if isinstance(answer, dict):
            run_id = answer.get("name") or run_id
            if "historyLineCount" in answer and run_id:
                with sqlite3.connect(self.database, timeout=30) as database:
                    query = "SELECT COUNT(DISTINCT step), MAX(step) FROM metrics WHERE run_id = ?"
                    lines, last = database.execute(query, (run_id,)).fetchone()
                answer["historyLineCount"] = lines
                if lines and "historyTail" in answer:
                    answer["historyTail"] = json.dumps([json.dumps({"_step": last, "_runtime": 1})])
            for part in answer.values():
                self._count_history(part, run_id)

    def _answer_views(self, variables: dict[str, Any], query: str) -> dict[str, Any] | None:
        """The answer to a request about views, None to any other."""
        if "mutation UpsertView2" in query:
            key = variables.get("id") or f"view{len(self.views)}"
            self.views[key] = variables
            view = {"id": key, "name": variables["name"]}
            return {"data": {"upsertView": {"view": view, "inserted": True}}}
        if "query View" in query and "allViews" in query:
            nodes = [
                {"node": {"id": key, "displayName": v["displayName"], "spec": v["spec"]}}
                for key, v in self.views.items()
                if v["name"] == variables["viewName"]
            ]
            return {"data": {"project": {"allViews": {"edges": nodes}}}}
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def _handle(self) -> None:
                mood = proxy.mood
                proxy.moods_seen[mood] += 1
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                match mood:
                    case "busy":
                        self.send_response(429)
                        self.send_header("Retry-After", "1")
                        self.end_headers()
                    case "error":
                        self.send_error(500)
                    case "denied":
                        self.send_error(401)
                    case "drop":
                        self.connection.close()
                    case "silent":
                        time.sleep(120)
                    case "slow":
                        time.sleep(1.0)
                        self._pass_on(body)
                    case _ if self.path == "/graphql" and (views := self._views(body)):
                        self._reply(200, [("Content-Type", "application/json")], views)
                    case _:
                        self._pass_on(body)

            do_GET = do_POST = do_PUT = _handle

            def _views(self, body: bytes) -> bytes | None:
                request = json.loads(body)
                answer = proxy._answer_views(request.get("variables") or {}, request["query"])
                return json.dumps(answer).encode() if answer else None

            def _reply(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _pass_on(self, body: bytes) -> None:
                upstream = http.client.HTTPConnection("127.0.0.1", proxy._upstream, timeout=60)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
                upstream.request(self.command, self.path, body, headers)
                answer = upstream.getresponse()
                content = answer.read()
                if self.path == "/graphql" and answer.status == 200:
                    parsed = json.loads(content)
                    variables = json.loads(body).get("variables") or {}
                    proxy._count_history(parsed, variables.get("name"))
                    content = json.dumps(parsed).encode()
                self._reply(answer.status, answer.getheaders(), content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
