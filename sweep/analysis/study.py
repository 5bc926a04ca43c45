"""The whole analysis of one study: every statistic that a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from sweep.analysis.claims import Verdict, article_claims
from sweep.analysis.comparison import Comparison
from sweep.analysis.controls import Controls, control_of, controls, near_identical
from sweep.analysis.correlation import coefficients, correlate, summarise, tau_alone
from sweep.analysis.seeds import seed_noise
from sweep.analysis.selection import select
from sweep.analysis.sign_error import Correctness, SignErrors, sign_errors
from sweep.analysis.table import TARGETS, sample, standard_rows, varied_axes
from sweep.analysis.user_claims import Claim, check_claim

MIN_MODELS = 8  # in a subset (without standard, masking) that gets coefficients of its own


@dataclass(frozen=True)
class Analysis:
    """``table``: every row. ``used``: the models that the coefficients rest on: usable, of the
    grid's own seeds, not masking. ``removed``: why the others do not count, with numbers.

    ``results``: frames of :func:`sweep.analysis.correlate`: ``"all models"`` that are used,
    ``"without standard"`` where there are some, and ``"with masking models"`` where some were set
    apart. ``targets``: tau alone, by target and subset of the used models.
    ``masking``: tau alone over the rows whose robustness is contradicted; None if few.
    ``masking_by_level``: see :attr:`sweep.analysis.Selection.masking_by_level`.
    ``no_cells``: why there are no psi; None if there are.
    """

    study: str
    target: str
    table: pd.DataFrame
    used: pd.DataFrame
    removed: dict[str, int]
    results: dict[str, pd.DataFrame]
    targets: dict[tuple[str, str], pd.DataFrame]
    masking: pd.DataFrame | None
    masking_by_level: pd.DataFrame
    controls: Controls | None
    identical: list[list[str]]
    signs: SignErrors
    seeds: pd.DataFrame
    verdicts: list[Verdict]
    own_verdicts: list[Verdict]
    comparison: Comparison | None
    no_cells: str | None

    @property
    def main(self) -> pd.DataFrame:
        """The coefficients over all used models, strongest tau first."""
        return strongest_first(self.results["all models"])

    @property
    def axes(self) -> list[str]:
        return varied_axes(self.used)

    @property
    def unit(self) -> str:
        """What is resampled: ``training``, or ``setting`` where the seed is an axis."""
        return "setting" if "seed" in self.axes else "training"

    @property
    def standard(self) -> int:
        """Number of used models trained without inner maximisation."""
        return int(standard_rows(self.used).sum())


def strongest_first(frame: pd.DataFrame) -> pd.DataFrame:
    """Measures by \\|tau\\|, undefined ones last."""
    return frame.sort_values("tau", key=abs, ascending=False, na_position="last")


def analyse(
    table: pd.DataFrame,
    *,
    study: str = "",
    target: str = "gap",
    draws: int = 1000,
    seed: int = 0,
    correctness: Correctness | None = None,
    claims: Sequence[Claim] = (),
    comparison: Comparison | None = None,
) -> Analysis:
    """Every statistic of the report, from a study's table.

    ``correctness`` weighs the pairs of the sign error; ``claims`` are the user's own;
    ``comparison`` (:func:`sweep.analysis.compare`) decides the article's fifth claim.

    Raises:
        ValueError: the table cannot be analysed (no target, all NaN, one model),
            or a claim names what it does not have.
    """
    selection = select(table)
    used = selection.used
    result = coefficients(sample(used, target=target), draws=draws, seed=seed)
    results = {"all models": summarise(result, seed=seed)}
    robust = used[~standard_rows(used)]
    subsets = {"all models": used}
    if MIN_MODELS <= len(robust) < len(used):
        subsets["without standard"] = robust
        results["without standard"] = correlate(robust, target=target, draws=draws, seed=seed)
    if len(selection.masking):
        results["with masking models"] = correlate(
            selection.with_masking, target=target, draws=draws, seed=seed
        )
    identical = near_identical(used, target=target)
    control = control_of(target)
    return Analysis(
        study=study,
        target=target,
        table=table,
        used=used,
        removed=selection.removed,
        results=results,
        targets=_other_targets(subsets, target, draws, seed),
        masking=_masking(selection.masking, target, draws, seed),
        masking_by_level=selection.masking_by_level,
        controls=(
            controls(used, target=target, draws=draws, seed=seed)
            if control in used.columns and control != target
            else None
        ),
        identical=identical,
        signs=sign_errors(used, target=target, correctness=correctness),
        seeds=seed_noise(used, selection.replicates, target=target),
        verdicts=article_claims(result, identical=identical, comparison=comparison),
        own_verdicts=[check_claim(used, claim, draws=draws, seed=seed) for claim in claims],
        comparison=comparison,
        no_cells=result.sample.no_cells,
    )


def _other_targets(
    subsets: dict[str, pd.DataFrame], target: str, draws: int, seed: int
) -> dict[tuple[str, str], pd.DataFrame]:
    """tau with every further target that at least a few models have."""
    return {
        (other, name): tau_alone(subset, target=other, draws=draws, seed=seed)
        for other in TARGETS
        for name, subset in subsets.items()
        if other != target and other in subset.columns and subset[other].notna().sum() >= MIN_MODELS
    }


def _masking(masking: pd.DataFrame, target: str, draws: int, seed: int) -> pd.DataFrame | None:
    if len(masking) < MIN_MODELS:
        return None
    return tau_alone(masking, target=target, draws=draws, seed=seed)
