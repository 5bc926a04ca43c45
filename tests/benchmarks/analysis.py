"""The analysis: time at the size of the paper's study, against a pandas/SciPy loop; coverage.

python -m tests.benchmarks.analysis
"""

from __future__ import annotations

import math
import time

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from sweep.analysis import analyse, correlate
from tests.sweep.analysis.synthetic import PAPER, SMALL, noise, settings, study

MEASURES = 60
DRAWS = 1000
LIMIT_SECONDS = 60
LIMIT_FACTOR = 20
REPEATS = 200


def paper_study() -> pd.DataFrame:
    """1,344 models x 60 measures over eight axes; measures from uncorrelated to nearly the gap."""
    gap = noise(0)
    strengths = np.linspace(-3, 3, MEASURES)
    measures = {f"m{k}": s * gap + noise(k + 1) for k, s in enumerate(strengths)}
    return study(measures, gap=gap.round(3), pgd_train=noise(98), pgd_test=noise(99))


def loop_estimate(table: pd.DataFrame, measure: str) -> None:
    """tau, psi_k and pi_k of one measure as one would write it with pandas and SciPy."""
    column = f"measure/{measure}"
    loop_tau_and_pi(table, column)
    for axis in PAPER:
        rows = table[table["steps"].notna()] if axis in ("steps", "method") else table
        cells = rows.groupby([a for a in PAPER if a != axis], dropna=False)
        np.nanmean([kendalltau(cell[column], cell["gap"]).statistic for _, cell in cells])


def loop_tau_and_pi(table: pd.DataFrame, column: str) -> None:
    kendalltau(table[column], table["gap"])
    for axis in PAPER:
        for _, level in table.groupby(axis):
            kendalltau(level[column], level["gap"])


def loop_draw(table: pd.DataFrame, measure: str, generator: np.random.Generator) -> None:
    """tau and pi_k of one resample of the trainings."""
    groups = table.groupby("training_id").indices
    drawn = generator.choice(list(groups), size=len(groups))
    loop_tau_and_pi(table.iloc[np.concatenate([groups[t] for t in drawn])], f"measure/{measure}")


def seconds(function, *arguments: object, **options: object) -> float:
    start = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - start


def speed() -> None:
    table = paper_study()
    whole = seconds(analyse, table, draws=DRAWS)
    ours = seconds(correlate, table, draws=DRAWS)
    generator = np.random.default_rng(0)
    estimate = np.mean([seconds(loop_estimate, table, f"m{k}") for k in range(2)])
    draw = np.mean([seconds(loop_draw, table, "m0", generator) for _ in range(5)])
    loop = MEASURES * (estimate + DRAWS * draw)
    print(f"{len(table):,} models x {MEASURES} measures x {len(PAPER)} axes, {DRAWS:,} draws")
    print(f"  whole analysis          {whole:8.1f} s   (limit {LIMIT_SECONDS} s)")
    print(f"  correlate               {ours:8.1f} s")
    print(f"  pandas and SciPy loop   {loop:8.1f} s   (extrapolated from 2 measures and 5 draws)")
    print(f"  correlate is {loop / ours:.0f} times faster (at least {LIMIT_FACTOR} wanted)")
    assert whole < LIMIT_SECONDS
    assert loop / ours > LIMIT_FACTOR


def coverage() -> None:
    """Share of 200 studies whose 95 % interval holds the truth, for every coefficient.

    Best and last checkpoint share half of the variance; the truth is 2 / pi * asin(rho).
    """
    grid = {**SMALL, "augmentation": ("none", "crop_flip"), "extra_data": (False, True)}
    table = settings(grid)
    training = pd.factorize(table["training_id"])[0]
    generator = np.random.default_rng(0)

    def component() -> np.ndarray:
        shared = generator.normal(size=training.max() + 1)[training]
        return (shared + generator.normal(size=len(table))) / math.sqrt(2)

    names = ["tau", "psi", "pi", "psi_method", "psi_steps", "psi_batch_size", "psi_early_stopping"]
    ratios = {"none": 0.0, "weak": 0.3, "medium": 1.0, "strong": 3.0}
    truth = {m: 2 / math.pi * math.asin(r / math.sqrt(1 + r**2)) for m, r in ratios.items()}
    covered = pd.DataFrame(0.0, index=list(ratios), columns=names)
    for repeat in range(REPEATS):
        gap = component()
        measures = {f"measure/{m}": r * gap + component() for m, r in ratios.items()}
        result = correlate(
            table.assign(clean_test=0.9, gap=gap, **measures), draws=500, seed=repeat
        )
        for name in names:
            value = pd.Series(truth)
            inside = (result[f"{name}_low"] <= value) & (value <= result[f"{name}_high"])
            covered[name] += inside.astype(float) / REPEATS
    print(f"\nCoverage of 95 % intervals, {REPEATS} studies of {len(table)} models")
    print(covered.round(3).to_string())
    assert (covered > 0.88).all(axis=None)


def main() -> None:
    speed()
    coverage()


if __name__ == "__main__":
    main()
