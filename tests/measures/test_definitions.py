"""Definitions: what a stored value was computed from, and when it has to be computed anew."""

from __future__ import annotations

from dataclasses import replace

import pytest
from torch import Tensor, nn

import measures
from defenses.spec import Threat
from measures import MEASURES, measure


def test_definitions_are_known_without_running(
    model: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    threat = Threat(eps=0.1, step_size=0.025)
    chosen = {"pacbayes_flat": {"draws": 2}}
    names = ["pacbayes_flat", "path_norm", "pacbayes_orig"]
    results = measure(
        model, *data, names=names, threat=threat, train_size=600, seed=3, parameters=chosen
    )
    for name in names:
        expected = measures.definition(
            name, chosen.get(name), threat=threat, num_images=24, train_size=600, seed=3
        )
        assert results[name].definition == expected


def test_a_definition_holds_what_matters_and_nothing_else() -> None:
    def of(name: str, parameters: dict[str, object] | None = None, **changed: object) -> str:
        base: dict[str, object] = {"threat": Threat(), "num_images": 1000, "train_size": 50000}
        return measures.definition(name, parameters, **{**base, **changed})  # type: ignore[arg-type]

    other = Threat(eps=4 / 255)
    assert of("path_norm") == of("path_norm", threat=other, num_images=1, seed=1, train_size=1)
    assert of("average_ce_clean") == of("average_ce_clean", threat=other, seed=1)
    assert of("average_ce_clean") != of("average_ce_clean", num_images=1)
    assert of("average_ce") != of("average_ce", threat=other)
    assert of("average_ce") != of("average_ce", seed=1)  # the random start of PGD
    assert of("hessian_trace_clean") != of("hessian_trace_clean", seed=1)
    assert of("hessian_trace") != of("hessian_trace", {"probes": 51})
    assert of("hessian_trace") == of("hessian_trace", {"probes": 40})  # the default
    assert of("pacbayes_orig") != of("pacbayes_orig", train_size=1)
    assert of("pacbayes_flat") == of("pacbayes_flat", train_size=1)


def test_a_raised_version_changes_only_that_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: measures.definition(name) for name in MEASURES}
    raised = replace(MEASURES["path_norm"], version=MEASURES["path_norm"].version + 1)
    monkeypatch.setitem(measures.MEASURES, "path_norm", raised)
    after = {name: measures.definition(name) for name in MEASURES}
    assert [name for name in MEASURES if before[name] != after[name]] == ["path_norm"]


def test_golden_definitions() -> None:
    """Stored values of finished studies stay valid: a change here recomputes them."""
    assert measures.definition("path_norm") == "8d702df88cc74f52"
    assert measures.definition("x_grad_norm", num_images=1000) == "f2fd07a65325edbd"
