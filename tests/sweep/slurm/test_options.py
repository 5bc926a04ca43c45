"""Options of the launcher: resources by axis, and errors that name the valid choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from sweep.convert import to_dataclass
from sweep.slurm.options import SlurmOptions

CONF = Path(__file__).parents[3] / "conf" / "hydra" / "launcher" / "slurm.yaml"


def make(**values: Any) -> SlurmOptions:
    return to_dataclass(SlurmOptions, values, "hydra.launcher")


def test_the_file_holds_every_option_at_its_default() -> None:
    written = yaml.safe_load(CONF.read_text())
    assert make(**written) == SlurmOptions()
    assert set(written) == set(SlurmOptions.__dataclass_fields__)


def test_later_axes_win_and_sbatch_options_are_merged() -> None:
    options = make(
        sbatch={"nice": 100},
        per={
            "architecture": {"wrn34_10": {"time_min": 3000, "sbatch": {"exclusive": True}}},
            "steps": {10: {"time_min": 4000}},
            "extra_data": {True: {"memory_gb": 64}},
        },
    )
    small = options.resources({"architecture": "resnet18", "steps": None, "extra_data": False})
    assert (small.time_min, small.memory_gb, small.sbatch) == (1440, None, {"nice": 100})
    large = options.resources({"architecture": "wrn34_10", "steps": 10, "extra_data": True})
    assert (large.time_min, large.memory_gb) == (4000, 64)
    assert large.sbatch == {"nice": 100, "exclusive": True}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"partitoin": "gpu"}, "did you mean hydra.launcher.partition"),
        ({"per": {"architektur": {}}}, "did you mean architecture|valid: .*architecture"),
        ({"per": {"method": {"at": {"tme_min": 3}}}}, "valid: .*time_min"),
        ({"per": {"method": {"at": {"time_min": "long"}}}}, "must be a whole number"),
        ({"time_min": 0}, "at least 1 minute"),
        ({"sbatch": {"open_mode": "truncate"}}, "set by the sweep itself"),
        ({"pack": 0}, "at least 1"),
        ({"signal_s": 120, "time_min": 2}, "at most half of time_min"),
    ],
)
def test_mistakes_are_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**values)
