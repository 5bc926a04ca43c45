"""The grid merged from differences is the grid that Hydra itself would compose."""

from __future__ import annotations

import random

import pytest

from sweep import compose


@pytest.mark.parametrize(
    "overrides",
    [
        ["study=demo"],
        ["method=at,trades", "batch_size=32,64"],
        ["study=demo", "batch_size=64", "seed=1,2"],
        # a group that brings a threat, together with that threat: precedence is Hydra's
        ["dataset=digits,fashion_mnist", "threat.eps=0.05,8/255", "method=at,mart"],
        ["tracking=wandb,none", "methods.trades.beta=1,6", "training.milestones=[0.5],[0.3,0.6]"],
        ["study=paper", "training.epochs=choice(10,20)", "steps=null,10"],
    ],
)
def test_grid_equals_composition_by_hydra(overrides: list[str]) -> None:
    with compose.hydra_context():
        grid = compose.grid(overrides)
        settings = list(grid.settings())
        assert len(settings) == len(grid)
        for levels, config in random.Random(0).sample(settings, min(6, len(settings))):
            assert config == compose.compose_plain(grid.overrides(levels))


def test_an_override_fixes_or_replaces_an_axis_of_the_study() -> None:
    with compose.hydra_context():
        fixed = compose.grid(["study=paper", "batch_size=128"])
        replaced = compose.grid(["study=paper", "batch_size=64,128"])
    assert "batch_size" not in fixed.axes
    assert fixed.base["batch_size"] == 128
    assert replaced.axes["batch_size"] == [64, 128]
    assert (len(fixed), len(replaced)) == (384, 768)


def test_of_a_key_given_twice_the_last_word_counts() -> None:
    with compose.hydra_context():
        fixed = compose.grid(["seed=0,1", "seed=2"])
        swept = compose.grid(["seed=2", "seed=3,4", "seed=0,1"])
    assert (fixed.axes, fixed.base["seed"]) == ({}, 2)
    assert swept.axes == {"seed": [0, 1]}


def test_settings_share_nothing_that_could_be_changed_by_accident() -> None:
    with compose.hydra_context():
        grid = compose.grid(["threat.eps=0.1,0.2"])
        (_, first), (_, second) = grid.settings()
    assert (first["threat"]["eps"], second["threat"]["eps"]) == (0.1, 0.2)
    assert grid.base["threat"]["eps"] == 0.15


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("metod=at", r"unknown option 'metod' \(did you mean method\?\)"),
        ("threat.epsilon=1", r"'threat.epsilon'.*valid: threat.eps"),
        ("threat={norm: l2, epsilon: 1}", r"'threat.epsilon'.*valid: threat.eps"),
        ("measuring.parameters.average_flat.draws=2", r"add it with a plus, \+measuring"),
        (
            "hydra.launcher.proceses=2",
            r"'hydra.launcher.proceses' \(did you mean hydra.launcher.pro",
        ),
        ("hydra.foo=2", r"unknown option 'hydra.foo'"),
        ("hydra.job.env_set.A=1", r"add it with a plus, \+hydra.job.env_set.A"),
        ("hydra/launcher=slrm", r"\(did you mean slurm\?\); valid: basic, local, slurm"),
        ("hydra.launcher=3", "hydra.launcher=3 is a section"),
        ("dataset=3", "unknown dataset '3'; valid: cifar10"),
        ("threat=[linf]", r"override threat=\[linf\]: Cannot merge"),
        ("study=papr", r"unknown study 'papr' \(did you mean paper\?\); valid: demo, paper"),
        ("dataset=cifar", r"unknown dataset 'cifar' .*valid: cifar10"),
        ("batch_size=(", "batch_size"),
    ],
)
def test_mistakes_are_named_with_what_would_be_valid(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        compose.check([override])
    assert "\n" not in str(error.value)


def test_an_unknown_axis_is_refused() -> None:
    with compose.hydra_context(), pytest.raises(ValueError, match="unknown"):
        compose.grid(["batchsize=32,64"])
