"""The list of measures agrees with the files, the docstrings and the documentation."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

import pytest

import measures
from measures import MEASURES, NOISY, SETS
from measures.catalogue import catalogue

ROOT = Path(__file__).parents[2]
INFRASTRUCTURE = {"__init__", "__main__", "catalogue", "registry", "sets"}


def test_every_measure_file_is_in_the_registry() -> None:
    stems = {path.stem for path in (ROOT / "measures").glob("*.py")} - INFRASTRUCTURE
    used = {m.function.__module__.removeprefix("measures.") for m in MEASURES.values()}
    assert used == stems


@pytest.mark.parametrize("name", MEASURES)
def test_the_docstring_says_what_and_where_from(name: str) -> None:
    entry = MEASURES[name]
    assert entry.summary, name
    assert len(entry.summary) > 20
    published = re.search(r"\b(19|20)\d\d\b|arXiv \d", entry.source)
    assert published or re.match("No paper|A control|Half of|Closed form", entry.source), name


@pytest.mark.parametrize("name", MEASURES)
def test_needs_agree_with_where_it_measures(name: str) -> None:
    entry = MEASURES[name]
    on = entry.variant.get("on")
    assert on is None or on in entry.needs
    assert name.endswith("_clean") == (on == "clean")
    assert entry.expected_sign in (1, -1, None)
    keyword_only = {
        p.name
        for p in inspect.signature(entry.function).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert set(entry.variant) <= keyword_only
    assert all(v is not inspect.Parameter.empty for v in entry.parameters.values()), name


def test_inferred_signs_are_not_shown_as_the_authors() -> None:
    """Nobody states a sign of these; of those others do, and the page tells the two apart."""
    for name in ("average_ce", "prob_margin", "x_grad_norm", "w_grad_norm"):
        assert MEASURES[name].sign_inferred, name
        assert re.search(rf"^\| `{name}` .*\| \([+−]\) \|", catalogue(), flags=re.MULTILINE), name
    for name in ("inverse_margin", "boundary_thickness", "pacbayes_flat"):
        assert not MEASURES[name].sign_inferred, name
        assert re.search(rf"^\| `{name}` .*\| [+−] \|", catalogue(), flags=re.MULTILINE), name
    assert not [n for n, m in MEASURES.items() if m.sign_inferred and m.expected_sign is None]


def test_no_two_entries_are_the_same_computation() -> None:
    seen = {(m.function, tuple(sorted(m.variant.items()))) for m in MEASURES.values()}
    assert len(seen) == len(MEASURES)


def test_sets() -> None:
    assert len(SETS["paper"]) == 16
    assert set(SETS["all"]) == set(MEASURES)
    for name, members in SETS.items():
        assert name not in MEASURES
        assert set(members) <= set(MEASURES)
        assert len(set(members)) == len(members)
    assert list(measures.resolve(["cheap", "params"])) == [*SETS["cheap"], "params"]


def test_noisy_measures_are_those_of_the_published_table() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    marked = re.findall(r"^\| `(\w+)` \|.*\| noisy \|$", page, flags=re.MULTILINE)
    assert set(marked) == NOISY <= set(MEASURES)


def test_the_documentation_is_up_to_date() -> None:
    """Regenerate with: python -m measures > docs/measures.md"""
    assert (ROOT / "docs" / "measures.md").read_text() == catalogue()


def test_the_command_prints_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_module("measures", run_name="__main__")
    assert capsys.readouterr().out == catalogue()
