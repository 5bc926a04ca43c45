"""What a study asked for, column by column, and where its models do not have just that.

A column of a study's table holds values of one definition: that of the last line of the manifest
that asks for the column. Models that have only others are left blank, and it is said how many.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import measures
from defenses.spec import Threat
from sweep import steps
from sweep.definitions import PARTS, Wanted, seen, wanted_by
from sweep.setting import Evaluation, Job, Measuring
from sweep.store import Row

OTHER = "not computed with the parameters that the study asked for last"
UNCLEAR = "computed with different parameters, and this study asked for none of them"

Name = tuple[str, str]  # part of a row, and a name in it


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
            path, colon, _ = asked.rpartition(".py:")  # a copy, in a folder named by its content
            file = {"file": "/".join(Path(f"{path}.py").parts[-2:])} if colon else {}
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
        self._requests: list[Request] = []  # each once, in the order of their first lines
        self._last: dict[Name, int] = {}  # column -> the request that decides, by its number
        self._wanted: dict[tuple[Threat, int], Wanted] = {}
        self._by_request: dict[tuple[int, Threat, int], Wanted] = {}
        before = None
        for line in lines:
            if before != (line.evaluation, line.measuring):  # most lines ask for the same
                self._add(Request(line.evaluation, _known(line.measuring)))
            before = line.evaluation, line.measuring

    def _add(self, request: Request) -> None:
        if request not in self._requests:
            self._requests.append(request)
        number = self._requests.index(request)
        self._last |= dict.fromkeys(request.names(), number)

    def wanted(self, job: Job) -> Wanted:
        """The definitions that the study's columns have for a model of this training."""
        threat, size = job.spec.threat, job.train_size
        if (threat, size) not in self._wanted:
            found: dict[str, dict[str, str]] = {part: {} for part in PARTS}
            for name, number in self._last.items():
                found[name[0]][name[1]] = self._of(number, threat, size)[name[0]][name[1]]
            self._wanted[threat, size] = found
        return self._wanted[threat, size]

    def _of(self, number: int, threat: Threat, size: int) -> Wanted:
        key = (number, threat, size)
        if key not in self._by_request:
            request = self._requests[number]
            self._by_request[key] = wanted_by(request.evaluation, request.measuring, threat, size)
        return self._by_request[key]

    def row(self, job: Job, row: Row, unclear: Iterable[Name] = ()) -> Row:
        """A model's row as the study's table and W&B show it.

        A value by another definition than the column's is null, with a reason. ``unclear``: further
        columns to blank (see ``unclear``).
        """
        view = seen(row, self.wanted(job))
        blank = [(part, name, OTHER) for part, name in self._others(job, view)]
        blank += [(part, name, UNCLEAR) for part, name in unclear if name in view[part]]
        if not blank:
            return view
        view = {**view, **{part: dict(view[part]) for part in PARTS}}
        for part, name, reason in blank:
            view[part][name] = {"value": None, "reason": reason, "definition": None}
        return view

    def _others(self, job: Job, view: Row) -> Iterator[Name]:
        """The columns of which a model has only values by other definitions."""
        for part, wanted in self.wanted(job).items():
            for name, value in view[part].items():
                if name in wanted and value["definition"] != wanted[name]:
                    yield part, name

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
            column(name): _text(self._requests[number].settings(name))
            for name, number in self._last.items()
        }

    def warnings(self, models: Iterable[tuple[Job, Row]]) -> list[str]:
        """In words, for columns of which some models have only values by other definitions."""
        models = list(models)
        held: Counter[Name] = Counter()
        others: defaultdict[Name, Counter[int | None]] = defaultdict(Counter)
        for job, row in models:
            view = seen(row, self.wanted(job))
            blank = list(self._others(job, view))
            held.update((p, n) for p in PARTS for n in view[p] if (p, n) not in blank)
            for part, name in blank:
                request = self._request(job, (part, name), view[part][name]["definition"])
                others[part, name][request] += 1
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for key, counts in others.items():
            alike[self._sentence(key, held[key], counts)].append(column(key))
        for key in sorted(self.unclear(models)):
            alike["left blank: " + UNCLEAR].append(column(key))
        return [f"{', '.join(names)}: {text}" for text, names in alike.items()]

    def _request(self, job: Job, name: Name, definition: str) -> int | None:
        """The last request of this study that a value came from, if it came from one."""
        part, key = name
        for number in reversed(range(len(self._requests))):
            threat, size = job.spec.threat, job.train_size
            if self._of(number, threat, size)[part].get(key) == definition:
                return number
        return None

    def _sentence(self, name: Name, held: int, others: Mapping[int | None, int]) -> str:
        last = self._requests[self._last[name]].settings(name)
        earlier = {n: self._requests[n].settings(name) for n in others if n is not None}
        varied = [k for k in last if any(s.get(k, last[k]) != last[k] for s in earlier.values())]

        def written(settings: Mapping[str, Any]) -> str:
            return "with " + _text({k: v for k, v in settings.items() if k in (varied or settings)})

        blank = [
            f"{count} that have it only "
            + ("as other code or another study computed it" if n is None else written(earlier[n]))
            for n, count in others.items()
        ]
        return (
            f"{held} models have what the study asked for last ({written(last)}); left blank are "
            + " and ".join(blank)
        )


def _known(measuring: Measuring) -> Measuring:
    """Without measures that are gone: of what an old line asked for, some may not exist any more.

    Their columns are then like those that the study never asked for.
    """
    names = []
    for name in measuring.names:
        try:
            measures.resolve([name])
        except ValueError:
            continue
        names.append(name)
    return replace(measuring, names=tuple(names))


def _text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())
