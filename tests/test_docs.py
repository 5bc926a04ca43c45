"""What the documents point to is there: files, commands of the command line, options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from sweep.__main__ import app

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = set(typer.main.get_group(app).commands)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
        if not link.startswith("http"):
            assert (document.parent / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_commands_exist(document: Path) -> None:
    for command in re.findall(r"python -m sweep ([a-z]+)", document.read_text()):
        assert command in COMMANDS, command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_studies_exist(document: Path) -> None:
    for study in re.findall(r"\bstudy=([a-z_]+)\b", document.read_text()):
        assert (ROOT / "conf" / "study" / f"{study}.yaml").exists(), study
