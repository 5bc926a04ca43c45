"""Which computation a value came from: two values are comparable when their definitions agree."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from defenses.spec import Threat, require
from measures.engine.context import ATTACK_STEPS, ATTACK_VERSION
from measures.engine.measure import Measure


def merged_parameters(name: str, measure: Measure, given: Mapping[str, Any]) -> dict[str, Any]:
    """The measure's parameters: defaults, overridden by those given. ``ValueError`` for a
    parameter that it does not have."""
    unknown = sorted(set(given) - set(measure.parameters))
    valid = ", ".join(measure.parameters) or "none"
    require(not unknown, f"measure {name} has no parameter {', '.join(unknown)}; it has: {valid}")
    return {**measure.parameters, **given}


def definition_of(
    name: str,
    measure: Measure,
    parameters: Mapping[str, Any],
    *,
    threat: Threat,
    num_images: int | None,
    train_size: int | None,
    seed: int,
) -> str:
    """16 hexadecimal digits: name, version, parameters, and what else changes the value.

    The threat counts only for measures on adversarial examples or with an own attack, the number
    of images only for those that look at images, the seed only for those that draw, and so on:
    changing it recomputes those and no others.
    """
    needs = measure.needs
    identity: dict[str, Any] = {
        "name": name,
        "version": measure.version,
        "parameters": {**measure.variant, **merged_parameters(name, measure, parameters)},
    }
    if measure.source_digest is not None:
        identity["file"] = measure.source_digest
    if needs & {"adversarial", "threat"}:
        identity["threat"] = asdict(threat)
    if "adversarial" in needs:
        identity["attack"] = {"steps": ATTACK_STEPS, "version": ATTACK_VERSION}
    if needs & {"clean", "adversarial"}:
        identity["images"] = num_images
    if "train_size" in needs:
        identity["train_size"] = train_size
    if measure.depends_on_seed:
        identity["seed"] = seed
    text = json.dumps(identity, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
