"""What a study asked for, column by column, and where its models do not have just that.

A column of a study's table holds values of one definition: that of the last line of the manifest
that asks for the column. Models that have only others are left blank, and it is said how many. A
flag of masking is never blanked: what any check has caught stays out of the coefficients.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import measures
from defenses.spec import Threat
from sweep import steps
from sweep.definitions import PARTS, Wanted, existing, seen, wanted_by
from sweep.setting import Evaluation, Job, Measuring
from sweep.store import Row

OTHER = "computed with other parameters than the study asked for last, or by other code"
UNCLEAR = "computed with different parameters, and this study asked for none of them"

Name = tuple[str, str]  # part of a row, and a name in it
MASKING: Name = ("metrics", "masking")


def column(name: Name) -> str:
    """The name of the column in a table."""
    return f"measure/{name[1]}" if name[0] == "measures" else name[1]


@dataclass(frozen=True)
class Request:
    """What some lines of a manifest ask for."""

    evaluation: Evaluation
    measuring: Measuring

    def names(self) -> Iterator[Name]:
        """The columns; which ones does not depend on the threat."""
        yield from (("metrics", n) for n in steps.metric_definitions(self.evaluation, Threat()))
        yield from (("measures", n) for n in steps.columns(self.measuring.names))

    def settings(self, name: Name) -> dict[str, Any]:
        """The parameters that a column's value depends on, as options are written."""
        part, key = name
        if part == "measures":
            asked = steps.columns(self.measuring.names)[key]
            known = measures.resolve([asked])[key].parameters
            given = self.measuring.parameters.get(key, {})
            path, _ = measures.split_reference(asked)  # a copy, in a folder named by its content
            file = {} if path is None else {"file": "/".join(path.parts[-2:])}
            images = "all" if self.measuring.images is None else self.measuring.images
            return {**file, **known, **given, "images": images, "seed": self.measuring.seed}
        options = {"steps": self.evaluation.steps, "seed": self.evaluation.seed}
        if key in steps.AUTOATTACK:
            images = self.evaluation.autoattack_images or "all"
            return {"autoattack_images": images, "seed": self.evaluation.seed}
        if key == "masking":
            return {"masking_images": self.evaluation.masking_images, **options}
        return options


class Asked:
    """The columns that the lines of one manifest ask for, the last line of each deciding."""

    def __init__(self, lines: Iterable[Job]) -> None:
        self._last: dict[Name, Request] = {}  # column -> what decides
        before = None
        for line in lines:
            if before != (line.evaluation, line.measuring):  # most lines ask for the same
                request = Request(line.evaluation, existing(line.measuring))
                self._last |= dict.fromkeys(request.names(), request)
            before = line.evaluation, line.measuring
        self._wanted = functools.cache(self._wanted_of)

    def wanted(self, job: Job) -> Wanted:
        """The definitions that the study's columns have for a model of this training."""
        return self._wanted(job.spec.threat, job.train_size)

    def _wanted_of(self, threat: Threat, size: int) -> Wanted:
        found: dict[str, dict[str, str]] = {part: {} for part in PARTS}
        for request in dict.fromkeys(self._last.values()):
            wanted = wanted_by(request.evaluation, request.measuring, threat, size)
            for part, name in request.names():
                if self._last[part, name] == request:
                    found[part][name] = wanted[part][name]
        return found

    def row(self, job: Job, row: Row, unclear: Iterable[Name] = ()) -> Row:
        """A model's row as the study's table and W&B show it.

        A value by another definition than the column's is null, with a reason; a flag of masking
        stays. Either is then without a definition. ``unclear``: further columns to blank (see
        ``unclear``).
        """
        wanted = self.wanted(job)
        view = seen(row, wanted)
        blank = {
            (part, name): OTHER
            for part in PARTS
            for name, value in view[part].items()
            if name in wanted[part] and value["definition"] != wanted[part][name]
        }
        blank |= {(part, name): UNCLEAR for part, name in unclear if name in view[part]}
        if not blank:
            return view
        view = {**view, **{part: dict(view[part]) for part in PARTS}}
        for (part, name), reason in blank.items():
            view[part][name] = {"value": None, "reason": reason, "definition": None}
        if MASKING in blank and (flag := _flag(row)):
            known = [flag["reason"]] if flag.get("reason") else []
            reason = "; ".join([*known, blank[MASKING]])
            view["metrics"]["masking"] = {"value": True, "reason": reason, "definition": None}
        return view

    def unclear(self, models: Iterable[tuple[Job, Row]]) -> set[Name]:
        """Columns that the study never asked for, of which its models have several definitions."""
        found: defaultdict[tuple[Name, Threat, int], set[str]] = defaultdict(set)
        for job, row in models:
            for part in PARTS:
                for name, value in row[part].items():
                    if (part, name) not in self._last:
                        key = ((part, name), job.spec.threat, job.train_size)
                        found[key].add(value["definition"])
        return {name for (name, *_), definitions in found.items() if len(definitions) > 1}

    def describe(self) -> dict[str, str]:
        """Column -> the parameters that all its values were computed with."""
        return {
            column(name): ", ".join(f"{key}={value}" for key, value in r.settings(name).items())
            for name, r in self._last.items()
        }

    def warnings(self, shown: Iterable[Row]) -> list[str]:
        """In words, for columns of which some models have only values by other definitions.

        ``shown``: all rows of the study, as ``row`` returns them.
        """
        count: Counter[Name] = Counter()
        blank: Counter[Name] = Counter()
        flagged = 0
        for row in shown:
            for part in PARTS:
                for name, value in row[part].items():
                    other = value["definition"] is None
                    count[part, name] += 1
                    blank[part, name] += other and value["value"] is None
                    flagged += other and value["value"] is True
        described = self.describe()
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for key, models_blank in blank.items():
            if models_blank:
                parameters = described.get(column(key))
                why = UNCLEAR if parameters is None else f"{OTHER} ({parameters})"
                text = f"{models_blank} of {count[key]} models are left blank: {why}"
                alike[text].append(column(key))
        found = [f"{', '.join(names)}: {text}" for text, names in alike.items()]
        if flagged:
            share = f"{flagged} of {count[MASKING]} models"
            found.append(f"masking: {share} stay flagged by other checks")
        return found


def _flag(row: Row) -> dict[str, Any] | None:
    """The masking value that flags a model, by whatever definition; None: nothing does."""
    kept = row.get("other_definitions", {}).get(MASKING[0], {}).get(MASKING[1], {})
    values = (row[MASKING[0]][MASKING[1]], *kept.values())
    return next((value for value in values if value["value"]), None)
