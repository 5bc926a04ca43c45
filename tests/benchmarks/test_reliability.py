"""docs/reliability.md has the table as its command prints it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests.benchmarks.reliability import NOISY, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"


def test_printed_rows_have_the_form_of_the_page() -> None:
    generator = np.random.default_rng(0)
    steady = generator.normal(size=28)
    printed = table(
        {
            "steady": np.column_stack([steady, steady]),
            "scattered": generator.normal(size=(28, 2)),
            "partly": np.column_stack([np.where(steady > 0, steady, np.nan), steady]),
            "absent": np.full((28, 2), np.nan),
        }
    ).splitlines()
    heading, line, *rows = re.findall(r"^\|.*$", PAGE.read_text(), re.MULTILINE)
    assert printed[:2] == [heading, line]
    assert printed[2] == "| `steady` | 1.000 | 28 of 28 |  |"
    assert re.fullmatch(r"\| `scattered` \| -?0\.\d{3} \| 28 of 28 \| noisy \|", printed[3])
    assert printed[4] == f"| `partly` | 1.000 | {(steady > 0).sum()} of 28 |  |"
    assert printed[5] == "| `absent` | | 0 of 28 | undefined |"
    number = r"(?: (-?\d\.\d{3}) | )"
    for row in rows:
        found = re.fullmatch(rf"\| `\w+` \|{number}\| \d+ of 28 \| (|noisy|undefined) \|", row)
        assert found, row
        tau, mark = found.groups()
        assert mark == ("undefined" if tau is None else "noisy" if float(tau) < NOISY else "")
