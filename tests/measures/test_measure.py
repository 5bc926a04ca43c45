"""The public functions: what they promise whatever the measure is."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import measures
from defenses.spec import Threat
from measures import MEASURES, SETS, Context, Measure, measure
from tests.measures.conftest import build_small

LITTLE = {  # small samples: these tests are about behaviour, not about values
    "boundary_thickness": {"examples": 8, "attack_steps": 3, "points": 8},
    "boundary_reach": {"examples": 8, "attack_steps": 3, "points": 8},
    "local_lip": {"examples": 8, "steps": 3},
    "local_lip_softmax": {"examples": 8, "steps": 3},
    "local_linearity": {"examples": 8, "steps": 3},
    "clever": {"examples": 2, "samples": 4, "maxima": 4},
    "minimal_distance": {"examples": 8, "steps": 3},
    "average_flat": {"examples": 8, "pairs": 2, "attack_steps": 2},
    "worst_case_flat": {"examples": 8, "steps": 2},
    "hessian_trace": {"examples": 8, "probes": 3},
    "hessian_trace_clean": {"examples": 8, "probes": 3},
    "weight_curvature": {"examples": 8, "probes": 3},
    "hessian_top": {"examples": 8},
    "effective_dimension": {"examples": 8, "probes": 2, "steps": 4},
    "adaptive_sharpness": {"steps": 3},
    "adaptive_sharpness_clean": {"steps": 3},
    "adaptive_sharpness_normalised": {"steps": 3},
    "gradient_variance": {"size": 8},
    "gradient_variance_clean": {"size": 8},
    "gradient_cosine": {"size": 8},
    "gradient_cosine_clean": {"size": 8},
    **{name: {"draws": 3, "search_steps": 3} for name in MEASURES if name.startswith("pacbayes")},
}


@pytest.fixture
def model(fitted: nn.Module) -> nn.Module:
    """One on which every measure has a value: that NaN is NaN would tell nothing."""
    return copy.deepcopy(fitted)


@pytest.fixture
def data(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return digits[0][:24], digits[1][:24]


def everything(
    model: nn.Module, data: tuple[Tensor, Tensor], **options: object
) -> dict[str, float]:
    initial = build_small().state_dict()
    names = options.pop("names", list(MEASURES))
    assert isinstance(names, list)
    settings: dict[str, object] = {
        "names": names,
        "initial_state": {name: 0.9 * t for name, t in initial.items()},
        "train_size": 600,
        "threat": Threat(eps=0.1, step_size=0.025),
        "parameters": {name: LITTLE[name] for name in names if name in LITTLE},
        **options,
    }
    return measures.compute(model, *data, **settings)


def test_every_measure_has_a_value(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    results = measure(
        model,
        *data,
        names=["all"],
        train_size=600,
        initial_state=build_small().state_dict(),
        threat=Threat(eps=0.1, step_size=0.025),
        parameters=LITTLE,
    )
    assert list(results) == list(MEASURES)
    for name, result in results.items():
        assert result.reason is None, (name, result.reason)
        assert math.isfinite(result.value), name
        assert result.se is None or result.se >= 0, name
        assert result.seconds >= 0
        assert re.fullmatch("[0-9a-f]{16}", result.definition)
    assert len({result.definition for result in results.values()}) == len(results)


def same(a: dict[str, float], b: dict[str, float], tolerance: float) -> None:
    for name in a:
        assert a[name] == pytest.approx(b[name], rel=tolerance, abs=1e-5), name


def test_values_do_not_depend_on_the_batch_size(
    model: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    whole = everything(model, data, batch_size=24)
    parts = everything(model, data, batch_size=5)
    # Sums in another order; where attacks walk over kinks that grows to a few 1e-3.
    same(whole, parts, 1e-2)


def test_values_do_not_depend_on_the_other_measures(
    model: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    together = everything(model, data)
    backwards = everything(model, data, names=list(reversed(MEASURES)))
    same(together, backwards, 1e-5)
    for name in SETS["paper"]:
        same({name: together[name]}, everything(model, data, names=[name]), 1e-5)


def snapshot(model: nn.Module) -> tuple[dict[str, Tensor], list[bool], list[object]]:
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return state, [m.training for m in model.modules()], gradients


def vandal(context: Context) -> float:
    """Everything a measure must not do."""
    context.model.train()
    context.model(context.images)  # moves the batch-norm statistics
    for parameter in context.model.parameters():
        parameter.data.zero_()
        parameter.grad = torch.ones_like(parameter)
        parameter.requires_grad_(False)
    raise RuntimeError("the vandal raised")


@pytest.fixture
def with_vandal(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = MEASURES["average_ce_clean"].needs
    ill = Measure(function=vandal, family="control", needs=needs, expected_sign=None)
    monkeypatch.setitem(measures.MEASURES, "vandal", ill)


@pytest.mark.usefixtures("with_vandal")
def test_nothing_is_left_changed(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    model[1].eval()  # a module with a mode of its own
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 0.5) if index % 2 else None
    frozen = next(model.parameters()).requires_grad_(False)
    random_state = torch.get_rng_state()
    state, modes, gradients = snapshot(model)
    everything(model, data, names=["vandal", *MEASURES])
    new_state, new_modes, new_gradients = snapshot(model)
    assert all(torch.equal(state[name], new_state[name]) for name in state)
    assert modes == new_modes
    assert len(gradients) == len(new_gradients)
    for old, new in zip(gradients, new_gradients, strict=True):
        assert (old is None and new is None) or torch.equal(old, new)  # type: ignore[arg-type]
    assert not frozen.requires_grad
    assert torch.equal(random_state, torch.get_rng_state())


@pytest.mark.usefixtures("with_vandal")
def test_a_measure_that_raises_fails_alone(model: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    names = [*SETS["cheap"], "hessian_top", "relative_flatness", "log_prod_of_spec_raw"]
    clean = everything(model, data, names=names)
    results = everything(model, data, names=["vandal", *names])
    assert math.isnan(results.pop("vandal"))
    same(clean, results, 1e-6)
    (failed,) = measure(model, *data, names=["vandal"]).values()
    assert failed.reason == "RuntimeError: the vandal raised"


@pytest.mark.parametrize("value", ["three", torch.zeros(3), None])
def test_a_measure_that_returns_no_number_fails_alone(
    model: nn.Module, data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch, value: object
) -> None:
    def odd(context: Context) -> Any:
        return value

    ill = Measure(function=odd, family="control", needs=frozenset({"clean"}), expected_sign=None)
    monkeypatch.setitem(measures.MEASURES, "odd", ill)
    results = measure(model, *data, names=["odd", "params"])
    assert results["odd"].reason is not None
    assert math.isnan(results["odd"].value)
    assert results["params"].value > 0


def test_a_quiet_change_of_the_model_is_undone(
    model: nn.Module, data: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def quiet(context: Context) -> float:
        context.model.train()
        with torch.no_grad():
            next(context.model.parameters()).add_(1)
        return 1.0

    ill = Measure(function=quiet, family="control", needs=frozenset({"clean"}), expected_sign=None)
    monkeypatch.setitem(measures.MEASURES, "quiet", ill)
    clean = everything(model, data, names=["average_ce_clean"])
    after = everything(model, data, names=["quiet", "average_ce_clean"])
    assert after["quiet"] == 1
    assert after["average_ce_clean"] == pytest.approx(clean["average_ce_clean"], rel=1e-6)


def test_three_lines_on_any_module() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    images, labels = torch.rand(20, 3, 2, 2), torch.arange(20) % 3
    values = measures.compute(network, images, labels, names=["x_grad_norm", "path_norm"])
    assert set(values) == {"x_grad_norm", "path_norm"}
    assert all(math.isfinite(v) for v in values.values())


def test_outside_the_folding_graph_only_what_needs_folding_is_undefined(
    data: tuple[Tensor, Tensor],
) -> None:
    """A transformer-like network: no graph to fold, everything else is measured."""
    network = nn.Sequential(
        nn.Flatten(),
        nn.Unflatten(1, (8, 8)),
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    x, y = data
    results = measure(
        network,
        x,
        y,
        names=["all"],
        train_size=600,
        initial_state=network.state_dict(),
        parameters=LITTLE,
        threat=Threat(eps=0.1, step_size=0.025),
    )
    for name, result in results.items():
        if "folded" in MEASURES[name].needs:
            assert result.reason is not None, name
            assert "cannot be folded" in result.reason, name
        else:
            assert result.reason is None or "margin" in result.reason, (name, result.reason)


Change = Callable[[nn.Module, Tensor, Tensor], tuple[nn.Module, Tensor, Tensor]]


def poisoned(model: nn.Module) -> nn.Module:
    next(model.parameters()).data[0] = math.nan
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m, x, y: (m, 2 * x + 0.1, y), r"images must be in \[0, 1\], but reach from 0\.1"),
        (lambda m, x, y: (m, x * math.nan, y), r"images must be in \[0, 1\]"),
        (lambda m, x, y: (m, (255 * x).byte(), y), "must be a float tensor"),
        (lambda m, x, y: (m, x, y + 3), "labels reach from 3 to 5, but the model has 3 classes"),
        (lambda m, x, y: (m, x, y - 5), "labels reach from -5"),
        (lambda m, x, y: (m, x, y[:-1]), r"labels must be int64 of shape \(24,\)"),
        (lambda m, x, y: (m, x, y.float()), "labels must be int64"),
        (lambda m, x, y: (m, x.expand(-1, 3, -1, -1), y), r"does not take images of shape \(3, 8"),
        (lambda m, x, y: (m, x[:0], y[:0]), "no images to measure on"),
        (lambda m, x, y: (poisoned(m), x, y), "holds NaN or infinite values"),
        (lambda m, x, y: (nn.Flatten(), x, y + 70), "labels reach from 70"),
        (lambda m, x, y: (nn.Identity(), x, y), "must return logits"),
    ],
)
def test_bad_input_is_refused(
    model: nn.Module, data: tuple[Tensor, Tensor], change: Change, message: str
) -> None:
    network, images, labels = change(model, *data)
    with pytest.raises(ValueError, match=message):
        measure(network, images, labels, names=["average_ce_clean"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["x_gradnorm"]}, "'x_gradnorm' is not known; choose .*x_grad_norm"),
        ({"names": ["x_grad_norm"], "parameters": {"x_grad_norm": {"order": 1}}}, "it has: none"),
        ({"parameters": {"pacbayes_flat": {"draw": 1}}}, "no parameter draw; it has: draws"),
        ({"names": ["params"], "parameters": {"x_grad_norm": {}}}, "not chosen: x_grad_norm"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"names": ["./missing.py:mine"]}, "there is no file .*missing.py"),
    ],
)
def test_bad_options_are_refused(
    model: nn.Module, data: tuple[Tensor, Tensor], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(model, *data, **options)  # type: ignore[arg-type]


def test_cost_counts_images_forward_and_backward(
    model: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    names = ["average_ce", "x_grad_norm", "hessian_trace", "path_norm", "local_lip"]
    options = {"parameters": {n: LITTLE[n] for n in names if n in LITTLE}, "batch_size": 7}
    costs = measures.cost(model, *data, names=names, **options)
    counts = {row.name: (row.forward, row.backward) for row in costs.rows}
    shared = counts.pop("(shared: examples, logits)")
    # 10 PGD steps and one gradient pass over 24 images, and a clean forward pass.
    assert shared == (24 * 11 + 24, 24 * 11)
    assert counts["average_ce"] == counts["x_grad_norm"] == (0, 0)
    # 10 products to find a subspace, 10 on it, 3 probes beside it: a graph for each of the three.
    assert counts["hessian_trace"] == (3 * 8, 3 * 8 + (10 + 10 + 3) * 8 * 2)
    assert counts["local_lip"] == (2 * (8 + 4 * 8), 2 * 3 * 8)
    assert counts["path_norm"][1] == 0
    assert costs.forward == sum(row.forward for row in costs.rows)
    assert "total" in str(costs)
    assert "hessian_trace" in str(costs)
