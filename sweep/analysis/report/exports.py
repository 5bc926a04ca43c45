"""The report's tables as CSV and LaTeX."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from sweep.analysis.study import Analysis, strongest_first
from sweep.analysis.wording import signed

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "−": "$-$", "–": "--", "τ": r"$\tau$", "Ψ": r"$\Psi$", "ψ": r"$\psi$", "<": r"$<$", ">": r"$>$",
    "|": r"$|$",
}  # fmt: skip


def write_tables(analysis: Analysis, directory: Path) -> None:
    """Every table in full as CSV; coefficients, controls and claims as LaTeX (booktabs)."""
    directory.mkdir(parents=True, exist_ok=True)
    frames = {f"coefficients_{_slug(name)}": frame for name, frame in analysis.results.items()}
    for (target, subset), frame in analysis.targets.items():
        frames[f"tau_{_slug(target)}_{_slug(subset)}"] = frame
    if analysis.masking is not None:
        frames["tau_masking"] = analysis.masking
    if analysis.controls is not None:
        frames["controls"] = analysis.controls.frame
        frames["pairs"] = analysis.controls.pairs
    frames["sign_errors"] = analysis.signs.errors
    frames["seeds"] = analysis.seeds
    frames["claims"] = pd.DataFrame([*analysis.verdicts, *analysis.own_verdicts])
    if analysis.comparison is not None:
        frames["comparison"] = analysis.comparison.frame
    for name, frame in frames.items():
        frame.to_csv(directory / f"{name}.csv")
    for name, frame in analysis.results.items():
        path = directory / f"coefficients_{_slug(name)}.tex"
        path.write_text(_coefficients(strongest_first(frame), analysis.axes), encoding="utf-8")
    claims: list[tuple[str, ...]] = [
        (v.statement, v.outcome, signed(v.value)) for v in analysis.verdicts
    ]
    text = latex(["claim", "verdict", "value"], claims, "p{0.6\\linewidth}ll")
    (directory / "claims.tex").write_text(text, encoding="utf-8")


def _coefficients(frame: pd.DataFrame, axes: list[str]) -> str:
    shown = [axis for axis in axes if f"psi_{axis}" in frame.columns]
    headings = ["measure", "τ", "95 % interval", "Ψ", *(f"ψ {axis}" for axis in shown)]
    rows = [
        (
            str(name),
            signed(row["tau"]),
            f"[{signed(row['tau_low'])}, {signed(row['tau_high'])}]",
            signed(row["psi"]),
            *(signed(row[f"psi_{axis}"]) for axis in shown),
        )
        for name, row in frame.iterrows()
    ]
    return latex(headings, rows, "lrr" + "r" * (len(headings) - 3))


def latex(headings: list[str], rows: list[tuple[str, ...]], columns: str) -> str:
    """A booktabs ``tabular``; all text is escaped."""
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    lines += [" & ".join(map(_escape, headings)) + r" \\", r"\midrule"]
    lines += [" & ".join(map(_escape, row)) + r" \\" for row in rows]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _slug(text: str) -> str:
    """A file name of it."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")
