"""The end of a study: its table in the terminal, models.parquet, and the report."""

from __future__ import annotations

from pathlib import Path

from sweep import analysis, table
from sweep.analysis import report
from sweep.console import console, errors
from sweep.store import Store


def show_result(store: Store, study: str) -> Path | None:
    """Collect, correlate, print and write the report; its path is the last line printed."""
    collected = table.collect(store, study)
    try:
        used, removed = analysis.usable(collected)
        axes = analysis.varied_axes(used)
        result = analysis.correlate(used, axes=axes)
    except ValueError as error:
        errors.print(f"no correlations: {error}", markup=False)
        return None
    console.print(analysis.terminal_table(result, axes))
    folder = store.study(study)
    path = report.write(collected, folder / "report", study)
    console.print(f"table:  {folder / 'models.parquet'}", markup=False)
    console.print(str(path), markup=False)
    return path
