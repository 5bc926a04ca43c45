"""The coefficients as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from rich import box
from rich.table import Table
from rich.text import Text

from sweep.analysis.wording import signed


def terminal_table(
    result: pd.DataFrame, axes: Sequence[str] | None = None, *, rows: int | None = None
) -> Table:
    """``result`` of :func:`sweep.analysis.correlate` as a table to print, strongest tau first.

    ``axes`` (default: all in ``result``) get one psi column each; ``rows`` limits the measures.
    Bold: the interval of tau excludes 0, so not only colour says it.
    """
    if axes is None:
        named = (c.removeprefix("cells_") for c in result.columns if c.startswith("cells_"))
        axes = [axis for axis in named if axis != "method_with_standard"]
    ranked = result.sort_values("tau", key=abs, ascending=False, na_position="last")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("measure", no_wrap=True)
    for heading in ("models", "τ", "95 % interval", "Ψ"):
        table.add_column(heading, justify="right", no_wrap=True)
    for axis in axes:
        table.add_column("ψ\n" + axis.replace("_", "\n"), justify="right")
    for name, row in ranked.head(len(ranked) if rows is None else rows).iterrows():
        clear = row["tau_low"] > 0 or row["tau_high"] < 0
        table.add_row(
            Text(str(name)),
            f"{row['n']:.0f}",
            signed(row["tau"]),
            f"{signed(row['tau_low'])} … {signed(row['tau_high'])}",
            signed(row["psi"]),
            *(signed(row[f"psi_{axis}"]) for axis in axes),
            style="bold" if clear else "",
        )
    if rows is not None and len(ranked) > rows:
        table.caption = f"{len(ranked) - rows} further measures in the report"
    return table
