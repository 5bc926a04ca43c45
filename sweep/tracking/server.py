"""Reading back what a W&B service holds, so that "it is there" is seen and not assumed.

The client library has no call that fetches many named runs at once, and a study asks for over a
thousand: this sends W&B's documented GraphQL for 50 runs a request, and backs off when told to.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from sweep.tracking.settings import TrackingSettings, api_key, base_url, default_entity

RUNS_PER_REQUEST = 50
ATTEMPTS = 6
REQUEST_TIMEOUT_S = 20.0
NO_RUN = -1  # in place of a last epoch: the service does not have the run
RETRIED = frozenset({408, 429, 500, 502, 503, 504})


class ServiceError(OSError):
    """The W&B service refused, or could not be reached. The message is fit for users."""


@dataclass(frozen=True)
class RemoteRun:
    """A run as the service has it. ``history_lines``: None where the service does not count.

    ``last_epoch`` is the last of its history, 0 before the first.
    """

    model_id: str
    state: str
    config: dict[str, Any]
    summary: dict[str, Any]
    tags: tuple[str, ...]
    history_lines: int | None
    last_epoch: int


class Server:
    """One project of the service that this user is logged in to."""

    def __init__(self, settings: TrackingSettings) -> None:
        self._url = f"{base_url()}/graphql"
        self._project = settings.project
        self._entity = settings.entity or default_entity()

    @cached_property
    def entity(self) -> str:
        """Whose project it is."""
        if self._entity:
            return self._entity
        viewer = self._ask("query { viewer { entity } }", {}).get("viewer")
        if not viewer:
            raise ServiceError(f"{base_url()} does not know this API key; run `wandb login`")
        return str(viewer["entity"])

    def runs(self, model_ids: Sequence[str]) -> dict[str, RemoteRun]:
        """Those of the runs that exist, by model id.

        Raises:
            ServiceError: not reachable or not allowed, after several attempts.
        """
        found: dict[str, RemoteRun] = {}
        for batch in _batches(model_ids, RUNS_PER_REQUEST):
            names = {f"run{i}": model_id for i, model_id in enumerate(batch)}
            declared = "".join(f", ${alias}: String!" for alias in names)
            fields = "name state config summaryMetrics tags historyLineCount historyTail"
            asked = " ".join(f"{a}: run(name: ${a}) {{ {fields} }}" for a in names)
            query = (
                f"query($project: String!, $entity: String!{declared}) "
                f"{{ project(name: $project, entityName: $entity) {{ {asked} }} }}"
            )
            variables = {"project": self._project, "entity": self.entity, **names}
            project = self._ask(query, variables).get("project") or {}
            for run in filter(None, project.values()):
                found[run["name"]] = _remote_run(run)
        return found

    def _ask(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        key = api_key()
        if key is None:
            raise ServiceError(f"nobody is logged in at {base_url()}; run `wandb login` first")
        request = urllib.request.Request(
            self._url,
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}",
            },
        )
        answer = _send(request)
        if errors := answer.get("errors"):
            raise ServiceError(f"{base_url()} answers: {errors[0].get('message', errors[0])}")
        data: dict[str, Any] = answer.get("data") or {}
        return data


def _send(request: urllib.request.Request) -> dict[str, Any]:
    wait_s = 1.0
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:
                answer = json.load(response)
            if isinstance(answer, dict):
                return answer
            reason = "it does not speak W&B's protocol"
        except urllib.error.HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
            if error.code not in RETRIED:
                raise ServiceError(f"{base_url()} refuses: {reason}") from None
            asked = error.headers.get("Retry-After", "")
            wait_s = max(wait_s, float(asked) if asked.isdigit() else 0.0)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
        if attempt < ATTEMPTS:
            time.sleep(min(wait_s, 60.0))
            wait_s *= 2
    raise ServiceError(f"{base_url()} cannot be reached: {reason}")


def _remote_run(run: dict[str, Any]) -> RemoteRun:
    config = json.loads(run["config"] or "{}")
    summary = json.loads(run["summaryMetrics"] or "{}")
    return RemoteRun(
        model_id=run["name"],
        state=run["state"],
        config={k: v["value"] for k, v in config.items() if k != "_wandb"},
        summary=summary,
        tags=tuple(run["tags"] or ()),
        history_lines=run["historyLineCount"] or None,
        last_epoch=_last_epoch(run, summary),
    )


def _last_epoch(run: dict[str, Any], summary: dict[str, Any]) -> int:
    """From the history itself where the service shows its end, as W&B does.

    The summary knows the epoch, too, but it may arrive before the history does. Only of a run
    that was closed in order it can be trusted; that is for services that do not count.
    """
    if run["historyLineCount"]:
        return int(json.loads(json.loads(run["historyTail"])[-1])["_step"])
    return int(summary.get("epoch", 0)) if run["state"] != "running" else 0


def _batches(items: Sequence[str], size: int) -> Iterator[list[str]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
