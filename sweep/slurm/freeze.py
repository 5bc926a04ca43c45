"""The code as it is now, copied next to the study: later edits do not reach queued jobs."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from sweep import files, provenance

_PARTS = ("defenses", "measures", "sweep", "hydra_plugins", "conf", "launch.py")
_SUFFIXES = (".py", ".yaml", ".json", ".toml", ".typed")


def freeze(study: Path) -> Path:
    """Copy the project's code to ``<study>/code/<digest>/``, once for each state of it.

    ``frozen.json`` there holds the commit, and the difference to it: what the rows' provenance
    quotes, however the repository goes on.
    """
    sources = _sources(files.PROJECT)
    digest = hashlib.sha256()
    for path in sources:
        name = path.relative_to(files.PROJECT).as_posix()
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    folder = study.resolve() / "code" / digest.hexdigest()[:12]
    if folder.exists():
        return folder
    partial = folder.with_name(f".{folder.name}.{os.uname().nodename}.{os.getpid()}")
    for path in sources:
        target = partial / path.relative_to(files.PROJECT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    frozen = provenance.code() | {"digest": folder.name, "diff": provenance.diff()}
    files.write_json(partial / "frozen.json", frozen)
    try:
        partial.rename(folder)
    except OSError:  # somebody else was faster with the same content
        shutil.rmtree(partial)
    return folder


def drift(folder: Path) -> list[str]:
    """Files that differ now from the frozen ones: to be told, never acted upon."""
    now = {p.relative_to(files.PROJECT): p for p in _sources(files.PROJECT)}
    then = {p.relative_to(folder): p for p in _sources(folder)}
    return sorted(
        name.as_posix()
        for name in now.keys() | then.keys()
        if name not in now or name not in then or now[name].read_bytes() != then[name].read_bytes()
    )


def _sources(root: Path) -> list[Path]:
    found = []
    for part in _PARTS:
        top = root / part
        paths = [top] if top.is_file() else top.rglob("*")
        found += [p for p in paths if p.is_file() and p.suffix in _SUFFIXES]
    return sorted(found)
