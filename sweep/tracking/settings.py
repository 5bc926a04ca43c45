"""Whether, where and how results are shown in W&B, and the environment the W&B client gets."""

from __future__ import annotations

import configparser
import netrc
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import urlsplit

PUBLIC_SERVICE = "https://api.wandb.ai"
Mode = Literal["wandb", "none"]


@dataclass(frozen=True, kw_only=True)
class TrackingSettings:
    """The configuration's ``tracking`` key. Nothing of it can change a result or an id.

    ``entity`` None: the default of whoever is logged in. ``online`` None: online if somebody is
    logged in and WANDB_MODE does not say otherwise, else offline inside the study's folder.
    A job waits at most ``finish_timeout_s`` for W&B, once, when it ends; ``init_timeout_s`` only
    bounds what happens in the background. ``jitter_s``: jobs of a Slurm array connect at random
    moments within this time, so that hundreds of them do not reach the service at once.
    """

    mode: Mode = "wandb"
    project: str = "robustness-sweep"
    entity: str | None = None
    online: bool | None = None
    init_timeout_s: float = 60.0
    finish_timeout_s: float = 20.0
    jitter_s: float = 10.0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(
                f"tracking.mode={self.mode!r} is not valid; choose one of: "
                f"{', '.join(get_args(Mode))}"
            )
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", self.project):
            raise ValueError(
                f"tracking.project={self.project!r} is no W&B project name: use up to 128 "
                "letters, digits, '-', '_' and '.'"
            )
        for name in ("init_timeout_s", "finish_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"tracking.{name}={getattr(self, name)} must be positive")
        if self.jitter_s < 0:
            raise ValueError(f"tracking.jitter_s={self.jitter_s} is negative")

    def is_online(self) -> bool:
        """Whether runs go to a W&B service while they happen."""
        if self.mode == "none":
            return False
        if self.online is not None:
            return self.online
        asked = os.environ.get("WANDB_MODE")
        return (asked in (None, "", "online")) and api_key() is not None


def base_url() -> str:
    """The W&B service this user works with: WANDB_BASE_URL, or what ``wandb login`` stored."""
    url = os.environ.get("WANDB_BASE_URL") or _stored("base_url") or PUBLIC_SERVICE
    return url.rstrip("/")


def default_entity() -> str | None:
    """The entity chosen outside this project: WANDB_ENTITY, or W&B's own settings file."""
    return os.environ.get("WANDB_ENTITY") or _stored("entity")


def api_key() -> str | None:
    """The key of whoever is logged in at ``base_url()``; never printed, logged or written."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    candidates = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    path = next((p for c in candidates if c and (p := Path(c).expanduser()).is_file()), None)
    if path is None:
        return None
    try:
        entry = netrc.netrc(path).authenticators(urlsplit(base_url()).netloc)
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError):
        return None
    return entry[2] if entry else None


def redact(text: str) -> str:
    """``text`` without the API key and without passwords in URLs, fit for files and logs."""
    if key := api_key():
        text = text.replace(key, "<api key>")
    return re.sub(r"(?<=://)[^/@\s]+@", "<credentials>@", text)


def wandb_folder(study_dir: Path) -> Path:
    """Everything W&B writes for a study lies in here."""
    return study_dir / "wandb"


def client_environment(folder: Path, scratch: Path) -> dict[str, str]:
    """Environment of a process that uses the W&B client: ours, with all its folders in ``folder``.

    ``scratch`` takes its caches and temporary files, and can be deleted after the process.

    What W&B remembers in the user's home (which service, which entity) is handed on by value,
    because its configuration folder moves too.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_") or k in _HANDED_ON}
    return kept | {
        "WANDB_BASE_URL": base_url(),
        "WANDB_DIR": str(folder.parent),
        "WANDB_CACHE_DIR": str(scratch / "cache"),
        "WANDB_DATA_DIR": str(scratch / "data"),
        "WANDB_CONFIG_DIR": str(scratch / "config"),
        "WANDB_ARTIFACT_DIR": str(scratch / "artifacts"),
        "WANDB_PROGRAM": "launch.py",  # W&B shows it: not the recorder, which no user started
        "WANDB_SILENT": "true",
        "WANDB_ERROR_REPORTING": "false",
        "TMPDIR": str(scratch),
    }


@contextmanager
def as_client(folder: Path) -> Iterator[None]:
    """Let this process use the W&B client for a while, with its files in ``folder``."""
    scratch = folder / "tmp" / f"{socket.gethostname()}-{os.getpid()}"
    scratch.mkdir(parents=True, exist_ok=True)
    before = dict(os.environ)
    os.environ.update(client_environment(folder, scratch))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(scratch, ignore_errors=True)


# WANDB_SERVICE would tie us to another process's client, WANDB_RUN_ID and the like to one run.
_HANDED_ON = frozenset({"WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_INSECURE_DISABLE_SSL"})


def _stored(name: str) -> str | None:
    """A value of the file in which ``wandb login`` and ``wandb init`` remember their answers."""
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb").expanduser()
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(folder / "settings", encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError):
        return None
    return parser.get("default", name, fallback=None)
