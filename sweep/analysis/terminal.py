"""The coefficients as a table for the terminal, in as many parts as its width asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from sweep.analysis.expectations import is_noisy
from sweep.analysis.wording import signed

_WIDE = 10_000  # columns: what a table would take if it had them


def terminal_table(result: pd.DataFrame) -> CoefficientTable:
    """``result`` of :func:`sweep.analysis.correlate` as something to print, strongest tau first.

    Bold: the interval of tau excludes 0, so not only colour says it.
    """
    named = (c.removeprefix("cells_") for c in result.columns if c.startswith("cells_"))
    axes = tuple(axis for axis in named if axis != "method_with_standard")
    ranked = result.sort_values("tau", key=abs, ascending=False, na_position="last")
    return CoefficientTable(ranked, axes)


@dataclass(frozen=True)
class CoefficientTable:
    """Renders as one table; axes that do not fit beside tau go into further ones below."""

    frame: pd.DataFrame
    axes: tuple[str, ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def fits(table: Table) -> bool:
            wanted = Measurement.get(console, options.update(width=_WIDE), table).maximum
            return wanted <= options.max_width

        remaining, with_tau = self.axes, True
        while with_tau or remaining:
            least = 0 if with_tau else 1
            counts = range(len(remaining), least, -1)
            taken = next((k for k in counts if fits(self._part(remaining[:k], with_tau))), least)
            yield self._part(remaining[:taken], with_tau)
            remaining, with_tau = remaining[taken:], False
        if any(is_noisy(str(name)) for name in self.frame.index):
            yield Text("≈ noisy: two seeds of the measure rank models at τ under 0.9", style="dim")

    def _part(self, axes: Sequence[str], with_tau: bool) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("measure", no_wrap=True)
        for heading in ("models", "τ", "95 % interval", "Ψ") if with_tau else ():
            table.add_column(heading, justify="right", no_wrap=True)
        for axis in axes:
            table.add_column("ψ\n" + axis.replace("_", "\n"), justify="right")
        for name, row in self.frame.iterrows():
            clear = row["tau_low"] > 0 or row["tau_high"] < 0
            tau = (
                f"{row['n']:.0f}",
                signed(row["tau"]),
                f"{signed(row['tau_low'])} … {signed(row['tau_high'])}",
                signed(row["psi"]),
            )
            psi = (signed(row[f"psi_{axis}"]) for axis in axes)
            cells = (*(tau if with_tau else ()), *psi)
            label = f"{name} ≈" if is_noisy(str(name)) else str(name)
            table.add_row(Text(label), *cells, style="bold" if clear else "")
        return table
