"""Options of ``hydra/launcher=slurm``: what jobs ask for, how they are cut, what is retried."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from defenses.spec import require
from sweep.axes import AXES, OPTIONS, level_name
from sweep.convert import to_dataclass, to_plain, unknown

# both checkpoints of a training come from one job, so early_stopping asks for nothing
RESOURCE_AXES = tuple(axis for axis in (*AXES, *OPTIONS) if axis != "early_stopping")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one Slurm job asks for.

    ``gpus`` and ``cpus`` are per job; ``memory_gb``: None: the partition's default. ``sbatch``
    holds any other option of sbatch under its long name, e.g. ``{nice: 100, mail-type: FAIL}``.
    """

    time_min: int = 1440
    gpus: int = 1
    cpus: int = 4
    memory_gb: float | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    sbatch: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        key = "hydra.launcher"
        require(self.time_min >= 1, f"{key}.time_min={self.time_min} must be at least 1 minute")
        require(self.gpus >= 0, f"{key}.gpus={self.gpus} is negative")
        require(self.cpus >= 1, f"{key}.cpus={self.cpus} must be at least 1")
        require(
            self.memory_gb is None or self.memory_gb > 0,
            f"{key}.memory_gb={self.memory_gb} must be positive, or null",
        )
        ours = {"array", "output", "error", "open-mode", "requeue", "signal", "comment", "chdir"}
        for name in self.sbatch:
            require(
                name.replace("_", "-") not in ours,
                f"{key}.sbatch.{name} is set by the sweep itself and cannot be changed",
            )


_RESOURCES = tuple(f.name for f in dataclasses.fields(Resources))


@dataclass(frozen=True, kw_only=True)
class SlurmOptions(Resources):
    """All options. ``conf/hydra/launcher/slurm.yaml`` says what each is for.

    ``per``: axis -> level -> resources that differ for the trainings at that level.
    ``parallelism``: jobs that run at the same time, over all arrays; None: no limit.
    ``pack``: trainings side by side in one job. ``chain``: trainings one after another in each of
    these places, by a process that stays. ``measure_pack``: trainings whose models one job
    measures, ``pack`` at a time.
    """

    kind: Literal["slurm"] = "slurm"
    per: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    parallelism: int | None = None
    pack: int = 1
    chain: int = 1
    measure_pack: int = 100
    setup: tuple[str, ...] = ()
    srun: bool = True
    python: str | None = None
    signal_s: int = 120
    canary_min: int = 10
    halt_after: int = 5
    retries: int = 1
    exclude_after: int = 2
    wait: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("pack", "chain", "measure_pack", "halt_after", "exclude_after"):
            require(
                getattr(self, name) >= 1,
                f"hydra.launcher.{name}={getattr(self, name)} must be at least 1",
            )
        for name in ("retries", "canary_min"):
            require(getattr(self, name) >= 0, f"hydra.launcher.{name} is negative")
        require(
            self.parallelism is None or self.parallelism >= 1,
            f"hydra.launcher.parallelism={self.parallelism} must be at least 1, or null",
        )
        require(
            10 <= self.signal_s <= 30 * self.time_min,
            f"hydra.launcher.signal_s={self.signal_s} must be at least 10 seconds, and at most "
            "half of time_min",
        )
        for axis, levels in self.per.items():
            if axis not in RESOURCE_AXES:
                raise unknown("axis", f"hydra.launcher.per.{axis}", RESOURCE_AXES)
            for level, changes in levels.items():
                for name in changes:
                    if name not in _RESOURCES:
                        where = f"hydra.launcher.per.{axis}.{level}.{name}"
                        raise unknown("option", where, _RESOURCES)
                self.resources({axis: level})  # every value is of the right type

    def resources(self, axes: Mapping[str, object]) -> Resources:
        """What a training at these levels asks for: later entries of ``per`` win."""
        values = {name: to_plain(getattr(self, name)) for name in _RESOURCES}
        for axis, levels in self.per.items():
            changes = {level_name(level): values for level, values in levels.items()}
            for name, value in changes.get(level_name(axes.get(axis)), {}).items():
                values[name] = {**values[name], **value} if name == "sbatch" else value
        return to_dataclass(Resources, values, "hydra.launcher")
