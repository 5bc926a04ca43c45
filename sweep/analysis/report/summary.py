"""The verdict in words, at the head of a report."""

from __future__ import annotations

import pandas as pd

from sweep.analysis.report.markup import Markup, tag
from sweep.analysis.study import Analysis
from sweep.analysis.wording import count, interval, listed, signed

_CLEAR = 0.05  # adjusted p-value below which a correlation is called different from zero
_MANY_OUT = 0.25  # share of a table, left out as replicates, that deserves a warning
_NAMED = 4  # measures named in a sentence before it says "and others"


def summary(analysis: Analysis) -> Markup:
    """Sentences, most important first; those that warn are marked."""
    return tag("ul", *_sentences(analysis), class_="summary prose")


def _sentences(analysis: Analysis) -> list[Markup]:
    mixed = [_caution(f"{text}.") for text in analysis.table.attrs.get("warnings", ())]
    ranked = analysis.main[analysis.main["tau"].notna()]
    if ranked.empty:
        return [
            *mixed,
            _caution("No measure varies together with a known target: there is nothing to rank."),
        ]
    sentences = [*mixed, _best(ranked, analysis.target), _how_many(ranked, analysis.target)]
    sentences += _controlled(analysis)
    sentences += _dependence(ranked)
    sentences += _claims(analysis)
    sentences += _standard(analysis)
    sentences += _other_seeds(analysis)
    sentences += _small(analysis)
    return sentences


def _best(ranked: pd.DataFrame, target: str) -> Markup:
    name, row = ranked.index[0], ranked.iloc[0]
    reach = interval(row["tau_low"], row["tau_high"])
    return tag(
        "li",
        tag("b", str(name)),
        f" goes most closely with the {spoken(target)}: τ = {signed(row['tau'])} "
        f"(95 % interval {reach}, {count(int(row['n']), 'model')}).",
    )


def _how_many(ranked: pd.DataFrame, target: str) -> Markup:
    clear = ranked[ranked["p_holm"] < _CLEAR]
    total = count(len(ranked), "measure")
    if clear.empty:
        return _caution(
            f"None of {total} has a rank correlation that is distinguishable from zero once "
            f"corrected for looking at all of them."
        )
    parts = []
    for word, chosen in (("rise", clear[clear["tau"] > 0]), ("fall", clear[clear["tau"] < 0])):
        if len(chosen):
            names = [*map(str, chosen.index[:_NAMED])]
            names += ["others"] if len(chosen) > _NAMED else []
            parts.append(f"{len(chosen)} {word}{'s' if len(chosen) == 1 else ''} ({listed(names)})")
    return tag(
        "li",
        f"Of {total}, {len(clear)} correlate with the {spoken(target)} beyond chance "
        f"(Holm-corrected over all of them): as it grows, {listed(parts)}.",
    )


def _controlled(analysis: Analysis) -> list[Markup]:
    """How many measures say more than the accuracy on the training set."""
    if analysis.controls is None:
        return []
    control = analysis.controls.control
    frame = analysis.controls.frame.drop(index=control).dropna(subset="tau")
    adds = frame[~frame["explained"]]
    strongest = adds.sort_values("partial", key=abs, ascending=False).index[:_NAMED].astype(str)
    tau = signed(analysis.controls.frame["tau"][control])
    half = analysis.target == "gap"
    text = (
        f"{control} alone has τ = {tau} with the {spoken(analysis.target)}"
        f"{', of which it is half' if half else ''}. "
    )
    if adds.empty:
        return [_caution(text + "Given it, no measure adds anything that can be told from chance.")]
    verb = "adds" if len(adds) == 1 else "add"
    names = listed([*strongest, "others"] if len(adds) > _NAMED else list(strongest))
    return [
        tag(
            "li",
            text
            + f"Given it, {len(adds)} of {count(len(frame), 'measure')} still {verb} ({names}).",
        )
    ]


def _claims(analysis: Analysis) -> list[Markup]:
    """The verdicts on the article's findings, counted."""
    outcomes = [verdict.outcome for verdict in analysis.verdicts]
    words = {
        "holds": ("holds here", "hold here"),
        "does not hold": ("does not hold", "do not hold"),
        "undecided": ("is undecided", "are undecided"),
    }
    parts = [
        f"{outcomes.count(outcome)} {one if outcomes.count(outcome) == 1 else several}"
        for outcome, (one, several) in words.items()
        if outcome in outcomes
    ]
    return [
        tag(
            "li",
            f"Of the article's {len(outcomes)} findings, {listed(parts)}: see ",
            tag("a", "claims", href="#claims"),
            ".",
        )
    ]


def _dependence(ranked: pd.DataFrame) -> list[Markup]:
    """Where the sign of a clear correlation turns over inside a level of an axis."""
    turned = []
    for name, row in ranked[ranked["p_holm"] < _CLEAR].iterrows():
        for column in ranked.columns:
            if (
                not column.startswith("pi_")
                or "=" not in column
                or column.endswith(("_low", "_high"))
            ):
                continue
            low, high = row[f"{column}_low"], row[f"{column}_high"]
            if (high < 0 < row["tau"]) or (low > 0 > row["tau"]):
                turned.append((abs(row[column]), str(name), column.removeprefix("pi_"), row))
    if not turned:
        return []
    _, name, level, row = max(turned, key=lambda entry: entry[0])
    measures = len({entry[1] for entry in turned})
    whole, inside = signed(row["tau"]), signed(row[f"pi_{level}"])
    others = f" The sign turns for {measures} measures in all." if measures > 1 else ""
    return [
        _caution(
            "What holds over all models need not hold inside a condition: ",
            tag("b", name),
            f" has τ = {whole} over all models but {inside} where {level}.{others}",
        )
    ]


def _standard(analysis: Analysis) -> list[Markup]:
    if not analysis.standard:
        return []
    share = f"{analysis.standard} of {count(len(analysis.used), 'model')}"
    return [
        _caution(
            f"{share} are trained without an adversary. Their robust accuracy and gap are close "
            "to zero, one near-tie that alone can make a correlation: compare the coefficients "
            "without them."
        )
    ]


def _other_seeds(analysis: Analysis) -> list[Markup]:
    """Where many models stay out because their seeds have only a part of the grid."""
    out, table = analysis.removed["seed replicates"], analysis.table
    if out < _MANY_OUT * len(table):
        return []
    whole = sorted(analysis.used["seed"].unique())
    return [
        _caution(
            f"{count(out, 'model')} of {len(table):,} are in no coefficient: only seed "
            f"{listed([str(seed) for seed in whole])} covers the grid, models of other seeds count "
            "as replicates. Train the rest of the grid with those to make the seed an axis."
        )
    ]


def _small(analysis: Analysis) -> list[Markup]:
    number, unit = int(analysis.main["trainings"].max()), analysis.unit
    if number >= 50:
        return []
    return [
        _caution(
            f"This study is small ({count(number, unit)}): intervals are wide, and a "
            f"bootstrap over so few {unit}s is itself approximate."
        )
    ]


def _caution(*children: str) -> Markup:
    return tag("li", *children, class_="caution")


def spoken(target: str) -> str:
    """The name of a target in a sentence."""
    return {
        "gap": "robust generalization gap",
        "pgd_test": "robust test accuracy",
        "clean_gap": "clean generalization gap",
        "aa_gap": "AutoAttack generalization gap",
    }.get(target, target)
