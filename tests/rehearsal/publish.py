"""Bring what the rehearsal found into the documentation: docs/rehearsal/.

python -m tests.rehearsal.publish                                  from results/rehearsal
python -m tests.rehearsal.publish docs/rehearsal/models.parquet    from this table alone

The table of all models, the report's page and figures, and ``tables.md``, so that no number in
docs/rehearsal.md was typed by hand: those that are no cell of a table there stand in its first one.

From a table alone nothing of results/rehearsal is needed. The sign errors of the report are then
unweighted, which it says (the per-example correctness is in the results), and the lists of faults
and accounts are those that ``tables.md`` has already. Change what is in the table (``masking``,
say), write it back to docs/rehearsal/models.parquet, and publish.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from defenses.files import atomic_file
from sweep import analysis
from sweep.analysis.study import Analysis
from sweep.analysis.wording import interval, percent, signed
from sweep.axes import AXES, level_name, level_order
from sweep.store import Store
from sweep.table import collect
from tests.slurm.cluster import PROJECT

TARGET = PROJECT / "docs" / "rehearsal"
METRICS = ["clean_test", "fgsm_test", "pgd_train", "pgd_test", "gap"]


def main() -> None:
    results = PROJECT / "results" / "rehearsal"
    store = Store(results)
    correctness = None
    if len(sys.argv) > 1:
        table = pd.read_parquet(sys.argv[1])
    else:
        table = collect(store, "rehearsal")
        correctness = store.read_correct
    TARGET.mkdir(exist_ok=True)
    table = table.drop(columns=["cost/measure_seconds/all", "provenance/host"], errors="ignore")
    with atomic_file(TARGET / "models.parquet") as file:  # it may be what was just read
        table.to_parquet(file, index=False, compression="zstd")
    found = analysis.analyse(table, study="rehearsal", correctness=correctness)
    with tempfile.TemporaryDirectory() as folder:
        page = analysis.report.render(found, Path(folder), formats=("svg",))
        shutil.copy(page, TARGET / "report.html")
        shutil.copytree(page.parent / "figures", TARGET / "figures", dirs_exist_ok=True)
    path = TARGET / "tables.md"
    path.write_text(tables(found, results / "rehearsal", path.read_text() if path.exists() else ""))


def tables(found: Analysis, notes: Path, before: str) -> str:
    """All of ``tables.md``. ``notes``: the rehearsal's folder of faults and accounts; where it has
    none, their sections are those of ``before``, the page so far."""
    sections = {
        "Numbers of the page": numbers(found),
        "Models by method": by_method(found),
        "Along each axis": by_axis(found),
        "Set apart as masking": masking(found),
        "Measures": measures(found),
        "The article's findings": verdicts(found),
        "Seeds": seeds(found),
        "Faults": faults(notes / "faults.jsonl"),
        "Accounts": accounts(notes / "accounts.json"),
    }
    text = "# Tables of the rehearsal\n\nWritten by `python -m tests.rehearsal.publish`.\n"
    for heading, lines in sections.items():
        text += f"\n## {heading}\n\n" + "\n".join(lines or section(before, heading)) + "\n"
    return text


def section(page: str, heading: str) -> list[str]:
    """The lines under a heading of a page.

    Raises:
        ValueError: the page has no such heading.
    """
    _, found, rest = page.partition(f"\n## {heading}\n")
    if not found:
        raise ValueError(f"no notes of the rehearsal, and no section {heading!r} in tables.md")
    return rest.partition("\n## ")[0].strip().splitlines()


def numbers(found: Analysis) -> list[str]:
    """What the page says that is no cell of the tables below."""
    main = grid(found)
    trainings = main.drop_duplicates("training_id")
    chosen, last = (
        trainings[f"provenance/training.{key}"].astype(float) for key in ("best_epoch", "epochs")
    )
    ends = main.pivot(index="training_id", columns="early_stopping", values="pgd_test").dropna()
    assert found.controls is not None
    control = found.controls.control
    frame = found.controls.frame.dropna(subset="tau")
    others = frame.drop(index=control)
    adding = others.index[~others["explained"]]
    content = [
        ("models of the grid", f"{len(main):,}"),
        ("further models, seed replicates", f"{len(found.table) - len(main):,}"),
        ("models in the coefficients", f"{len(found.used):,}"),
        *((f"left out: {reason}", f"{number:,}") for reason, number in found.removed.items()),
        ("trainings that chose another epoch than the last",
         f"{(chosen != last).sum()} of {len(trainings)}"),
        ("pairs of best and last that differ in `pgd_test`",
         f"{(ends[True] != ends[False]).sum()} of {len(ends)}"),
        ("`gap`, lowest and highest of a model",
         f"{signed(100 * main['gap'].min(), 1)} to {signed(100 * main['gap'].max(), 1)} points"),
        (f"τ of `{control}`, the control, with `gap`",
         f"{signed(frame.loc[control, 'tau'])} "
         f"({interval(frame.loc[control, 'tau_low'], frame.loc[control, 'tau_high'])})"),
        ("measures that add to the control", f"{len(adding)} of {len(others)}"),
        ("they are", ", ".join(f"`{name}`" for name in adding) or "–"),
    ]  # fmt: skip
    return rows(["number", "value"], content)


def grid(found: Analysis) -> pd.DataFrame:
    """The finished models of the grid, without seed replicates."""
    return found.table[(found.table["seed"] == 0) & (found.table["status"] == "done")]


def masking(found: Analysis) -> list[str]:
    """How many of the usable models the check for masking set apart, by level of each axis."""
    records = found.masking_by_level.to_dict("records")
    content = [(*list(record.values())[:-1], percent(record["share"])) for record in records]
    return rows(["axis", "level", "usable models", "masking", "share"], content)


def rows(headings: Sequence[str], content: Iterable[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    cells = ([str(cell).replace("|", r"\|") for cell in row] for row in content)
    return lines + ["| " + " | ".join(row) + " |" for row in cells]


def by_method(found: Analysis) -> list[str]:
    main = grid(found)
    grouped = main.groupby(["method", "steps"], dropna=False)
    content = [
        (method, level_name(steps), len(part), *(f"{part[m].mean():.3f}" for m in METRICS))
        for (method, steps), part in grouped
    ]
    return rows(["method", "steps", "models", *METRICS], content)


def by_axis(found: Analysis) -> list[str]:
    main = grid(found)
    content = []
    for axis in AXES:
        for level in sorted(main[axis].unique(), key=level_order):
            part = main[main[axis].map(level_name) == level_name(level)]
            content.append(
                (axis, level_name(level), len(part), *(f"{part[m].mean():.3f}" for m in METRICS))
            )
    return rows(["axis", "level", "models", *METRICS], content)


def measures(found: Analysis) -> list[str]:
    assert found.controls is not None
    main, robust = found.main, found.results["without standard"]
    everyone = found.results.get("with masking models", main)
    control, noise = found.controls.frame, found.seeds
    content = []
    for name, row in main.iterrows():
        if pd.isna(row["tau"]):
            content.append((f"`{name}`", int(row["n"]), *["–"] * 8))
            continue
        partial = control.loc[name]
        content.append(
            (
                f"`{name}`",
                int(row["n"]),
                signed(row["tau"]),
                interval(row["tau_low"], row["tau_high"]),
                signed(row["psi"]),
                signed(row["pi"]),
                signed(robust.loc[name, "tau"]),
                signed(everyone.loc[name, "tau"]),
                f"{signed(partial['partial'])} "
                f"({interval(partial['partial_low'], partial['partial_high'])})",
                _written(noise["ratio"].get(name, math.nan), ".2f"),
            )
        )
    headings = ["measure", "models", "τ", "95 % interval", "Ψ", "π"]
    headings += ["τ without standard", "τ with masked rows"]
    return rows([*headings, "partial τ given robust train accuracy", "seed sd / spread"], content)


def verdicts(found: Analysis) -> list[str]:
    content = [
        (v.statement, v.outcome, signed(v.value), interval(v.low, v.high), v.n, v.detail)
        for v in found.verdicts
    ]
    return rows(["claim", "verdict", "value", "95 % interval", "models", "detail"], content)


def seeds(found: Analysis) -> list[str]:
    content = [
        (f"`{name}`", int(row["settings"]), int(row["models"]), *_three(row))
        for name, row in found.seeds.sort_values("ratio").iterrows()
    ]
    return rows(
        ["of", "settings", "models", "sd", "sd / spread", "share of pairs closer than sd"], content
    )


def _three(row: pd.Series[Any]) -> tuple[str, str, str]:
    formats = {"sd": ".4g", "ratio": ".3f", "below": ".3f"}
    sd, ratio, below = (_written(row[key], form) for key, form in formats.items())
    return sd, ratio, below


def _written(value: float, form: str) -> str:
    """A number in the given format; a dash where there is none."""
    return "–" if math.isnan(value) else f"{value:{form}}"


def faults(path: Path) -> list[str]:
    """The faults that struck; nothing where there are no notes of them."""
    if not path.exists():
        return []
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    content = [
        (f"{datetime.fromtimestamp(e['time']):%H:%M:%S}", e["models"], e["fault"], e["what"])
        for e in entries
    ]
    return rows(["time", "models with a row", "fault", "what happened"], content)


def accounts(path: Path) -> list[str]:
    """The accounts of the run; nothing where there are no notes of them."""
    if not path.exists():
        return []
    shown = {k: v for k, v in json.loads(path.read_text()).items() if k != "faults"}
    return rows(["account", "value"], [(k, _flat(v)) for k, v in shown.items()])


def _flat(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(
        f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items()
    )


if __name__ == "__main__":
    main()
