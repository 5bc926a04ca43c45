"""The end of a study: its table in the terminal, models.parquet, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweep import analysis, table
from sweep.analysis.user_claims import Claim
from sweep.analysis.wording import count, percent
from sweep.console import console, errors
from sweep.store import Store


def show_result(
    store: Store,
    study: str,
    *,
    target: str = "gap",
    claims: Sequence[Claim] = (),
    comparison: analysis.Comparison | None = None,
) -> Path | None:
    """Collect, correlate, print and write the report; its path is the last line printed.

    Returns None, and says why, where there is nothing to correlate: too few models, say.
    """
    collected = table.collect(store, study)
    table.show_warnings(collected)
    folder = store.study(study)
    try:
        result = analysis.analyse(
            collected,
            study=study,
            target=target,
            correctness=table.correctness(store, study),
            claims=claims,
            comparison=comparison,
        )
        console.print(analysis.terminal_table(result.results["all models"]))
        if not result.masking_by_level.empty:
            console.print(_masking(result), markup=False)
        if result.no_cells:
            console.print(f"no Ψ: {result.no_cells}", markup=False)
        path = analysis.report.render(result, folder / "report")
    except ValueError as error:
        errors.print(f"no correlations: {error}", markup=False)
        return None
    console.print(f"one row per model: {folder / 'models.parquet'}", markup=False)
    console.print(str(path), markup=False)
    return path


def _masking(result: analysis.Analysis) -> str:
    """How many models were set apart, and where most."""
    levels = result.masking_by_level.to_dict("records")
    worst = max(levels, key=lambda level: float(level["share"]))
    return (
        f"{count(result.removed['masking'], 'model')} set apart as masking, most where "
        f"{worst['axis']}={worst['level']} ({percent(worst['share'])}); the report has the "
        "coefficients with them, too"
    )
