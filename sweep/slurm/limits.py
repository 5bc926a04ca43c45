"""What the cluster allows: sizes of arrays, jobs in the queue, partitions and their time limits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from getpass import getuser

from sweep.convert import unknown
from sweep.slurm import client

MAX_ARRAY_SIZE = 1001  # Slurm's default, where scontrol does not tell


@dataclass(frozen=True)
class Partition:
    """A partition. ``max_minutes``: None: no limit."""

    name: str
    default: bool
    up: bool
    max_minutes: int | None


@dataclass(frozen=True)
class Limits:
    """``max_array_size``: elements of one array. ``max_submit``: jobs of this user in the queue.

    ``max_submit`` is None where nobody limits it, or the accounting database does not tell.
    """

    max_array_size: int
    max_submit: int | None
    partitions: dict[str, Partition]

    def check(self, partition: str | None, minutes: int, key: str) -> None:
        """Raise ``ValueError`` if jobs of this length could never start in the partition.

        Slurm would accept them and let them wait for ever (``EnforcePartLimits=NO``).
        """
        if partition is None:
            chosen = [p for p in self.partitions.values() if p.default]
        else:
            names = partition.split(",")
            for name in names:
                if name not in self.partitions:
                    raise unknown("partition", name, self.partitions)
            chosen = [self.partitions[name] for name in names]
        limits = [p.max_minutes for p in chosen]
        if limits and all(limit is not None and minutes > limit for limit in limits):
            longest = max(limit for limit in limits if limit is not None)
            raise ValueError(
                f"{key}={minutes} is above the limit of partition "
                f"{partition or chosen[0].name} ({longest} minutes); choose at most {longest}: "
                "a longer training is requeued and goes on from its checkpoint"
            )


def read() -> Limits:
    """Ask Slurm. Raises ``client.SlurmError`` if the controller does not answer."""
    config = client.run(["scontrol", "show", "config"], patience_s=client.PATIENCE_S[:4])
    sizes = [_setting(config, "MaxJobCount"), *_submit_limits()]
    return Limits(
        max_array_size=_setting(config, "MaxArraySize") or MAX_ARRAY_SIZE,
        max_submit=min((s for s in sizes if s is not None), default=None),
        partitions=parse_partitions(client.run(["scontrol", "show", "partition", "--oneliner"])),
    )


def parse_partitions(text: str) -> dict[str, Partition]:
    """Partitions from ``scontrol show partition --oneliner``."""
    partitions = {}
    for line in text.splitlines():
        fields = dict(part.split("=", 1) for part in line.split() if "=" in part)
        name = fields["PartitionName"]
        partitions[name] = Partition(
            name,
            default=fields.get("Default") == "YES",
            up=fields.get("State") == "UP",
            max_minutes=parse_minutes(fields.get("MaxTime", "UNLIMITED")),
        )
    return partitions


def parse_minutes(text: str) -> int | None:
    """Minutes of Slurm's ``[days-]hours:minutes:seconds``; None for UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, _seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + minutes


def _submit_limits() -> list[int | None]:
    """Limits of the user's associations and of the qos they may use; empty without accounting."""
    show = ["sacctmgr", "--noheader", "--parsable2", "--readonly", "show"]
    try:
        associations = client.run(
            [*show, "assoc", f"user={getuser()}", "format=MaxSubmit,GrpSubmit,QOS"]
        )
        qualities = client.run([*show, "qos", "format=Name,MaxSubmitPU,MaxSubmitPA,GrpSubmit"])
    except client.SlurmError:
        return []
    return parse_submit_limits(associations, qualities)


def parse_submit_limits(associations: str, qualities: str) -> list[int | None]:
    """All submit limits in the two tables that concern this user."""
    rows = [line.split("|") for line in associations.splitlines() if line]
    mine = {name for row in rows for name in row[2].split(",")}
    values = [value for row in rows for value in row[:2]]
    for line in qualities.splitlines():
        name, *limits = line.split("|")
        if name in mine:
            values += limits
    return [_number(value) for value in values]


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _setting(config: str, name: str) -> int | None:
    values: Iterable[str] = re.findall(rf"^{name}\s*=\s*(\d+)", config, flags=re.MULTILINE)
    return next((int(value) for value in values), None)
