"""The table of all measures as a page of documentation, written from the registry."""

from __future__ import annotations

from typing import get_args

from measures.engine.measure import Family, Measure
from measures.registry import MEASURES
from measures.sets import SETS

HEAD = """\
# Measures

Written by `python -m measures` from the registry; do not edit.

Each value has a *definition*: a hash of the measure's name, version, parameters and whatever else
changes it. "Sign" is that of Kendall's τ with the robust generalization gap (train minus test) that
the measure's authors expect. In brackets it is our own inference: they state no sign, or one for
something else, such as robustness. Blank: nothing is expected. Authors and inference can differ on
like quantities: margin theory says that wide margins generalize (`margin_p10`: −), but the mean
margin of training images (`prob_margin`) rises with train accuracy, half of the gap: (+), as low
losses (`average_ce`) go with a large gap: (−). "Needs" says what it looks at:
`weights` as they are, `folded` weights (batch-norm folded into the convolutions by graph), the
`initial` weights, `clean` or `adversarial` (PGD-10, shared by all) training images, their
`gradients`, the `threat`, the `train_size`. A measure marked ~ draws random numbers of its own and
repeats them for a standard error where one is given. Parameters are set as
`measures.compute(..., parameters={"pacbayes_flat": {"draws": 20}})`.
"""


def catalogue() -> str:
    """The page, in Markdown."""
    parts = [HEAD, sets()]
    for family in get_args(Family):
        parts.append(f"## {family.capitalize()}\n\n{table(family)}")
    return "\n".join(parts)


def sets() -> str:
    lines = ["## Sets", ""]
    for name, members in SETS.items():
        listed = "every measure below" if name == "all" else ", ".join(f"`{m}`" for m in members)
        lines.append(f"- **{name}** ({len(members)}): {listed}")
    return "\n".join([*lines, ""])


def table(family: Family) -> str:
    rows = ["| measure | what | source | needs | sign | parameters |", "|---|---|---|---|---|---|"]
    rows += [row(name, m) for name, m in MEASURES.items() if m.family == family]
    return "\n".join([*rows, ""])


def row(name: str, measure: Measure) -> str:
    sign = {1: "+", -1: "−", None: ""}[measure.expected_sign]
    if measure.sign_inferred:
        sign = f"({sign})"
    variant = ", ".join(f"{key}={value}" for key, value in measure.variant.items())
    what = measure.summary + (f" ({variant})" if variant else "")
    cells = (
        f"`{name}`{' ~' if measure.stochastic else ''}",
        what,
        measure.source,
        ", ".join(sorted(measure.needs)),
        sign,
        ", ".join(f"{key}={value:g}" for key, value in measure.parameters.items()),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
