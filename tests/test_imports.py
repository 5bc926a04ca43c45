"""Imports go one way: launch.py -> sweep -> measures -> defenses; hydra_plugins -> sweep."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "defenses": {"defenses"},
    "measures": {"measures", "defenses"},
    "sweep": {"sweep", "measures", "defenses"},
    "hydra_plugins": {"hydra_plugins", "sweep"},
}
OURS = {*ALLOWED, "tests", "launch"}


def imported(path: Path) -> set[str]:
    """Top-level names of our own packages that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add((node.module or "").partition(".")[0])
    return names & OURS


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        wrong = imported(path) - ALLOWED[package]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_launch_stays_a_doorway() -> None:
    text = (ROOT / "launch.py").read_text()
    assert len(text.splitlines()) < 40
    assert imported(ROOT / "launch.py") == {"sweep"}


def test_conf_holds_values_only() -> None:
    assert not list((ROOT / "conf").rglob("*.py"))
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert "_target_" not in path.read_text(), f"{path} would break when code moves"


def test_hydra_plugins_stays_a_namespace() -> None:
    # with an __init__.py, plugins installed by pip would vanish
    assert not (ROOT / "hydra_plugins" / "__init__.py").exists()
