"""Bring what the rehearsal found into the documentation: docs/rehearsal/.

python -m tests.rehearsal.publish

The table of all models, the report's page and figures, and ``tables.md``, so that no number in
docs/rehearsal.md was typed by hand.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.stats import kendalltau

from sweep import analysis
from sweep.analysis.study import Analysis
from sweep.analysis.wording import interval, signed
from sweep.axes import AXES, level_name, level_order
from sweep.store import Store
from sweep.table import collect
from tests.slurm.cluster import PROJECT

TARGET = PROJECT / "docs" / "rehearsal"
METRICS = ["clean_test", "fgsm_test", "pgd_train", "pgd_test", "gap"]


def main() -> None:
    results = PROJECT / "results" / "rehearsal"
    store = Store(results)
    table = collect(store, "rehearsal")
    TARGET.mkdir(exist_ok=True)
    table = table.drop(columns=["cost/measure_seconds/all", "provenance/host"], errors="ignore")
    table.to_parquet(TARGET / "models.parquet", index=False, compression="zstd")
    found = analysis.analyse(table, study="rehearsal", correctness=store.read_correct)
    analysis.report.render(found, results / "report", formats=("svg",))
    shutil.copy(results / "report" / "index.html", TARGET / "report.html")
    shutil.copytree(results / "report" / "figures", TARGET / "figures", dirs_exist_ok=True)
    notes = results / "rehearsal"
    sections = {
        "Models by method": by_method(found),
        "Along each axis": by_axis(found),
        "Measures": measures(found),
        "The article's findings": verdicts(found),
        "Seeds": seeds(found),
        "Faults": faults(notes / "faults.jsonl"),
        "Accounts": accounts(json.loads((notes / "accounts.json").read_text())),
    }
    text = "# Tables of the rehearsal\n\nWritten by `python -m tests.rehearsal.publish`.\n"
    for heading, lines in sections.items():
        text += f"\n## {heading}\n\n" + "\n".join(lines) + "\n"
    (TARGET / "tables.md").write_text(text)


def rows(headings: Sequence[str], content: Iterable[Sequence[object]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return lines + ["| " + " | ".join(map(str, row)) + " |" for row in content]


def by_method(found: Analysis) -> list[str]:
    main = found.table[(found.table["seed"] == 0) & (found.table["status"] == "done")]
    grouped = main.groupby(["method", "steps"], dropna=False)
    content = [
        (method, level_name(steps), len(part), *(f"{part[m].mean():.3f}" for m in METRICS))
        for (method, steps), part in grouped
    ]
    return rows(["method", "steps", "models", *METRICS], content)


def by_axis(found: Analysis) -> list[str]:
    main = found.table[(found.table["seed"] == 0) & (found.table["status"] == "done")]
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
    everyone = analysis.usable(found.table[found.table["seed"] == 0])
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
                signed(_tau(everyone, str(name))),
                f"{signed(partial['partial'])} "
                f"({interval(partial['partial_low'], partial['partial_high'])})",
                f"{noise.loc[name, 'ratio']:.2f}" if name in noise.index else "–",
            )
        )
    headings = ["measure", "models", "τ", "95 % interval", "Ψ", "π"]
    headings += ["τ without standard", "τ with masked rows"]
    return rows([*headings, "partial τ given robust train accuracy", "seed sd / spread"], content)


def _tau(table: pd.DataFrame, name: str) -> float:
    """SciPy's τ over all rows that have a value, those that the check for masking set apart too."""
    part = table[[f"measure/{name}", "gap"]].astype(float).dropna()
    return float(kendalltau(part.iloc[:, 0], part.iloc[:, 1]).statistic)


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
    return f"{row['sd']:.4g}", f"{row['ratio']:.3f}", f"{row['below']:.3f}"


def faults(path: Path) -> list[str]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    content = [
        (f"{datetime.fromtimestamp(e['time']):%H:%M:%S}", e["models"], e["fault"], e["what"])
        for e in entries
    ]
    return rows(["time", "models with a row", "fault", "what happened"], content)


def accounts(content: dict[str, Any]) -> list[str]:
    shown = {k: v for k, v in content.items() if k != "faults"}
    return rows(["account", "value"], [(k, _flat(v)) for k, v in shown.items()])


def _flat(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(
        f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in value.items()
    )


if __name__ == "__main__":
    main()
