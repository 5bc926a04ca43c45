"""Build HTML whose text is escaped by construction: only :class:`Markup` is taken as HTML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | int | float | None


def tag(name: str, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """``<name attributes>children</name>``; children that are not Markup are escaped.

    ``class_`` is the class, ``aria_sort`` becomes ``aria-sort``; an attribute that is False or
    None is left out, one that is True has no value.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def _attribute(key: str, value: str | int | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    key = key.rstrip("_").replace("_", "-")
    return f" {key}" if value is True else f' {key}="{escape(str(value))}"'


def join(children: Iterable[Child]) -> Markup:
    """One after the other, escaped where needed; a number and its percent sign stay together."""
    return Markup("".join(map(_written, (child for child in children if child is not None))))


def _written(child: str | int | float) -> str:
    return child if isinstance(child, Markup) else escape(str(child)).replace(" %", "\u202f%")


def embedded_json(identifier: str, value: Any) -> Markup:
    """Data for the page's script. ``<`` is written as an escape, so no text can end the tag."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return tag("script", Markup(text), type="application/json", id=identifier)


def data_table(
    headings: Sequence[str | Markup],
    rows: Iterable[Sequence[Child]],
    *,
    sort_keys: Iterable[Sequence[float | str]] | None = None,
    class_: str = "",
    filter_label: str | None = None,
    identifier: str | None = None,
) -> Markup:
    """A table that the page's script can sort, and filter when ``filter_label`` is given.

    ``sort_keys``: for each row, what its cells sort by, where that is not what they show.
    """
    head = tag("tr", *(tag("th", heading, scope="col") for heading in headings))
    body = []
    keys = iter(sort_keys) if sort_keys is not None else None
    for row in rows:
        row_keys: Sequence[float | str | None] = next(keys) if keys else [None] * len(row)
        body.append(
            tag(
                "tr",
                *(tag("td", cell, data_key=key) for cell, key in zip(row, row_keys, strict=True)),
            )
        )
    table = tag(
        "table", tag("thead", head), tag("tbody", *body), class_=f"sortable {class_}".strip()
    )
    search = (
        tag(
            "input",
            type="search",
            placeholder=filter_label,
            aria_label=filter_label,
            class_="filter",
        )
        if filter_label
        else None
    )
    return tag("div", search, tag("div", table, class_="scroll"), class_="datatable", id=identifier)
