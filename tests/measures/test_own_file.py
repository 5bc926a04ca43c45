"""Measures from a file outside the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import Tensor, nn

import measures
from measures import measure

MINE = '''
"""A measure of my own."""
from measures import Context, Measure

def half_loss(context: Context, *, factor: float = 0.5) -> float:
    """Half of the clean loss."""
    return factor * float(context.clean.cross_entropy.mean())

lean = Measure(function=half_loss, family="margin", needs=frozenset({"clean"}), expected_sign=1)
number = 3
'''


def test_measures_from_a_file(
    model: nn.Module, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    names = ["average_ce_clean", "mine.py:half_loss", f"{path}:lean"]
    results = measure(model, *data, names=names, folder=tmp_path)
    assert list(results) == ["average_ce_clean", "half_loss", "lean"]
    assert results["half_loss"].value == pytest.approx(results["average_ce_clean"].value / 2)
    options = {"parameters": {"lean": {"factor": 2.0}}, "folder": tmp_path}
    (double,) = measures.compute(model, *data, names=["mine.py:lean"], **options).values()
    assert double == pytest.approx(2 * results["average_ce_clean"].value)


def test_the_example_in_the_documentation_works(
    model: nn.Module, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "adding-a-measure.md").read_text()
    function, wrapped, *_ = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "mine.py").write_text(function + wrapped)
    names = ["mine.py:logit_gap", "mine.py:lean"]
    values = measures.compute(model, *data, names=names, folder=tmp_path)
    assert values["logit_gap"] == values["lean"] > 0


def test_editing_the_file_changes_the_definition(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    reference = f"{path}:half_loss"
    first = measures.definition(reference)
    assert measures.definition(reference) == first
    path.write_text(MINE + "\n# a comment\n")
    assert measures.definition(reference) != first


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (MINE, "nothing", "defines no nothing"),
        (MINE, "number", "neither a Measure nor a function"),
        ("def broken(:", "broken", "cannot be loaded: SyntaxError"),
        ("import no_such_module", "x", "cannot be loaded: ModuleNotFoundError"),
        ("def path_norm(context): ...", "path_norm", "is a built-in measure; rename yours"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, name: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        measures.resolve([f"{path}:{name}"])
