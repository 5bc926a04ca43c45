"""Plain data to typed, frozen dataclasses and back: strict, with errors that name the key.

Configurations come from YAML and the command line, frozen tasks from JSON; both pass here.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import re
import types
import typing
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar("T")
_FRACTION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")


def unknown(kind: str, name: str, valid: Iterable[str]) -> ValueError:
    """The error for a name that does not exist: the nearest valid one, then all of them."""
    choices = sorted(valid)
    near = difflib.get_close_matches(name, choices, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return ValueError(f"unknown {kind} {name!r}{hint}; valid: {', '.join(choices)}")


def to_dataclass(cls: type[T], data: Mapping[str, Any], key: str = "") -> T:
    """Build ``cls`` from plain data. ``key`` is where the data stands, for messages.

    Raises:
        ValueError: an unknown or missing key, a value of the wrong type, or whatever the
            dataclass itself refuses.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{key or cls.__name__} must be a mapping, not {data!r}")
    fields, hints = _shape(typing.cast(Hashable, cls))
    for name in data:
        if name not in fields:
            raise unknown("option", f"{key}.{name}".lstrip("."), [_join(key, f) for f in fields])
    values = {}
    for name, field in fields.items():
        if name in data:
            values[name] = _convert(hints[name], data[name], _join(key, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"{_join(key, name)} is missing")
    return cls(**values)


@functools.cache
def _shape(cls: Any) -> tuple[dict[str, dataclasses.Field[Any]], dict[str, Any]]:
    """Fields and resolved types of a dataclass; resolving them is slow."""
    return {f.name: f for f in dataclasses.fields(cls)}, typing.get_type_hints(cls)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _convert(hint: Any, value: Any, key: str) -> Any:
    if hint is Any:
        return value
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        (inner,) = (a for a in get_args(hint) if a is not type(None))
        return _convert(inner, value, key)
    if origin is Literal:
        if isinstance(value, bool) and str(value).lower() in get_args(hint):
            value = str(value).lower()  # YAML reads the choice "true" as a boolean
        if value not in get_args(hint):
            raise ValueError(
                f"{key}={value!r} is not valid; choose one of: "
                f"{', '.join(map(str, get_args(hint)))}"
            )
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type[Any], hint)):
            return value
        return to_dataclass(typing.cast(type[Any], hint), value, key)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ValueError(f"{key}={value!r} must be a list")
        inner = get_args(hint)[0]
        return tuple(_convert(inner, v, f"{key}[{i}]") for i, v in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ValueError(f"{key}={value!r} must be a mapping")
        inner = get_args(hint)[1]
        return {str(k): _convert(inner, v, _join(key, str(k))) for k, v in value.items()}
    return _scalar(hint, value, key)


def _scalar(hint: type[Any], value: Any, key: str) -> Any:
    if hint is float:
        if isinstance(value, str) and (match := _FRACTION.fullmatch(value)):
            # eps is customarily written as 8/255
            if float(match[2]) == 0:
                raise ValueError(f"{key}={value!r} divides by zero")
            return float(match[1]) / float(match[2])
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            result = None
            with suppress(ValueError, OverflowError):
                result = float(value)  # of text too: YAML 1.1 reads 5e-4 as text
            if result is not None and math.isfinite(result):
                return result
            if result is not None:
                raise ValueError(f"{key}={value!r} must be a finite number")
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    elif isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    wanted = {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "str": "text",
    }
    raise ValueError(f"{key}={value!r} must be {wanted.get(hint.__name__, hint.__name__)}")


def number(key: str, text: str) -> float:
    """A number as people write it: ``2/255``, ``5e-4``. Raises ``ValueError`` naming ``key``."""
    return float(_scalar(float, text, key))


def to_plain(value: Any) -> Any:
    """A dataclass as plain dicts and lists, as JSON and YAML hold it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(v) for v in value]
    return value
