"""What a measure declares is all that it gets: otherwise its definition would say too little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

import measures
from defenses.spec import Threat
from measures import MEASURES, Context, Measure, Result, measure
from measures.engine.measure import Need
from tests.measures.conftest import build_small
from tests.measures.test_measure import LITTLE


@pytest.fixture
def run(fitted: nn.Module, digits: tuple[Tensor, Tensor]) -> Callable[..., Result]:
    """The named measure alone, or the last of those named, on a net with a value of each."""

    def run(*names: str, folder: Path | None = None) -> Result:
        results = measure(
            fitted,
            digits[0][:24],
            digits[1][:24],
            names=names,
            threat=Threat(eps=0.1, step_size=0.025),
            initial_state=build_small().state_dict(),
            train_size=600,
            parameters={name: LITTLE[name] for name in names if name in LITTLE},
            folder=folder,
        )
        return list(results.values())[-1]

    return run


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_declares_what_its_definition_needs_and_no_more(
    name: str, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a value with what it declares, and none with any less."""
    assert run(name).reason is None
    entry = MEASURES[name]
    for need in sorted(entry.needs & {"adversarial", "threat", "train_size"}):
        less = replace(entry, needs=entry.needs - {need}, stochastic=True)
        monkeypatch.setitem(MEASURES, name, less)
        reason = run(name).reason or ""
        assert f'"{name}": entry(...) of measures/registry.py, add "{need}" to needs' in reason
    if entry.needs & {"clean", "adversarial"}:
        less = replace(entry, needs=entry.needs - {"clean", "adversarial"}, stochastic=True)
        monkeypatch.setitem(MEASURES, name, less)
        assert (run(name).reason or "").startswith(f"Undeclared: {name} uses context.")
    if entry.stochastic and "adversarial" not in entry.needs:
        monkeypatch.setitem(MEASURES, name, replace(entry, stochastic=False))
        assert "add stochastic=True" in (run(name).reason or "")


def lean(use: Callable[[Context], object], *needs: Need) -> Measure:
    def function(context: Context) -> float:
        use(context)
        return 1.0

    return Measure(function=function, family="margin", needs=frozenset(needs), expected_sign=None)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda c: c.adversarial.logits, "context.adversarial but"),
        (lambda c: c.on("adversarial"), "context.adversarial but"),
        (lambda c: c.threat, 'add "threat" to needs'),
        (lambda c: c.attack(c.model, c.images, c.labels, purpose="x"), 'add "threat" to needs'),
        (lambda c: c.train_size, 'add "train_size" to needs'),
        (lambda c: c.generator("mine"), "add stochastic=True"),
        (lambda c: c.seed, "add stochastic=True"),
    ],
)
def test_what_is_not_declared_is_refused(
    use: Callable[[Context], object],
    message: str,
    run: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(measures.MEASURES, "mine", lean(use, "clean"))
    reason = run("mine").reason or ""
    assert reason.startswith("Undeclared: mine uses context.")
    assert message in reason
    assert run("average_ce", "mine").reason == reason  # also where it was computed before


def test_what_the_context_uses_by_itself_does_not_count(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(context: Context) -> None:
        _ = context.num_classes, context.image_shape, context.head
        context.layer_norms("folded", "spectral")

    monkeypatch.setitem(measures.MEASURES, "mine", lean(use, "folded"))
    assert run("mine").reason is None


def test_a_shared_result_counts_as_what_it_was_computed_from(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def use(context: Context) -> None:
        context.once(("mine",), lambda: float(context.adversarial.margins.mean()))

    monkeypatch.setitem(measures.MEASURES, "lawful", lean(use, "adversarial"))
    monkeypatch.setitem(measures.MEASURES, "sibling", lean(use, "adversarial"))
    monkeypatch.setitem(measures.MEASURES, "mine", lean(use, "clean"))
    assert run("lawful", "sibling").reason is None
    reason = run("mine").reason or ""
    assert "context.adversarial" in reason
    assert run("lawful", "mine").reason == reason


def test_a_file_of_ones_own(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from measures import Context, Measure\n"
        "def plain(context: Context) -> float:\n"
        '    """Everything there is."""\n'
        "    context.generator('mine'), context.folded, context.initial_state, context.images\n"
        "    context.threat, context.train_size\n"
        "    return float(context.adversarial.margins[0])\n"
        "lean = Measure(function=plain, needs=frozenset({'clean'}), family='margin',\n"
        "               expected_sign=None)\n"
    )
    assert run("mine.py:plain", folder=tmp_path).reason is None
    assert run("mine.py:lean", folder=tmp_path).reason == (
        "Undeclared: lean uses context.generator but does not declare it: "
        "in the line lean = Measure(...) of your file, add stochastic=True"
    )
