"""A row's results under the column names of ``models.parquet``, which are W&B's as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def result_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics, measures, costs and provenance, flat. What is undefined is None.

    A metric has a reason where it says one: why a model is masking, why there is no value.
    """
    columns: dict[str, Any] = {}
    for name, metric in row.get("metrics", {}).items():
        columns[name] = metric["value"]
        if "reason" in metric:
            columns[f"{name}.reason"] = metric["reason"]
    for name, result in row.get("measures", {}).items():
        columns[f"measure/{name}"] = result["value"]
        columns[f"measure/{name}.se"] = result.get("se")
        columns[f"measure/{name}.reason"] = result.get("reason")
    columns |= _flat("cost", row.get("costs", {}), "/")
    return columns | _flat("provenance", row.get("provenance", {}), ".")


def _flat(prefix: str, values: Mapping[str, Any], separator: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            parts = {f"{prefix}/{name}{separator}{part}": v for part, v in value.items()}
        else:
            parts = {f"{prefix}/{name}": value}
        flat |= {key: v if isinstance(v, _PLAIN) else repr(v) for key, v in parts.items()}
    return flat


_PLAIN = str | int | float | bool | None  # what fits a cell; nested data goes in as text
