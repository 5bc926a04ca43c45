"""What the cluster allows: sizes of arrays, jobs in the queue, partitions and their time limits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from sweep.convert import unknown
from sweep.slurm import accounting, client
from sweep.slurm.accounting import Accounting, SubmitLimit
from sweep.slurm.options import Resources

MAX_ARRAY_SIZE = 1001  # Slurm's default, where scontrol does not tell
_CLOSED = ("DRAIN", "INACTIVE")  # sbatch refuses; to a DOWN partition it submits


@dataclass(frozen=True)
class Partition:
    """A partition. ``state``: UP, DOWN, DRAIN or INACTIVE. ``max_minutes``: None: no limit."""

    name: str
    default: bool
    state: str
    max_minutes: int | None
    qos: str | None


@dataclass(frozen=True)
class Limits:
    """``max_array_size``: elements of one array. ``max_jobs``: jobs in the queue, None: unknown."""

    max_array_size: int
    max_jobs: int | None
    partitions: dict[str, Partition]
    accounting: Accounting = field(default_factory=Accounting)

    def submit_limits(self, asked: Resources) -> list[SubmitLimit]:
        """How many such jobs this user may have in the queue; empty where nobody limits it."""
        found = [] if self.max_jobs is None else [SubmitLimit(self.max_jobs)]
        places: list[tuple[str | None, str | None]]
        places = [(p.name, p.qos) for p in self._chosen(asked.partition)]
        for name, qos in places or [(None, None)]:
            found += self.accounting.limits(asked.account, asked.qos, name, qos)
        return list(dict.fromkeys(found))

    def check(self, partition: str | None, minutes: int, key: str) -> None:
        """Raise ``ValueError`` if jobs of this length could never start in the partition.

        Slurm would accept too long ones and let them wait for ever (``EnforcePartLimits=NO``).
        """
        chosen = self._chosen(partition)
        if chosen and all(p.state in _CLOSED for p in chosen):
            others = [p.name for p in self.partitions.values() if p.state == "UP"]
            raise ValueError(
                f"{_names(chosen)} is {chosen[0].state} and takes no jobs; "
                f"partitions that are up: {', '.join(others) or 'none'}"
            )
        limits = [p.max_minutes for p in chosen]
        if limits and all(limit is not None and minutes > limit for limit in limits):
            longest = max(limit for limit in limits if limit is not None)
            raise ValueError(
                f"{key}={minutes} is above the limit of {_names(chosen)} ({longest} minutes); "
                f"choose at most {longest}: "
                "a longer training is requeued and goes on from its checkpoint"
            )

    def warning(self, partition: str | None) -> str | None:
        """What to know of jobs that are accepted, and yet begin only when somebody acts."""
        chosen = self._chosen(partition)
        if not chosen or any(p.state == "UP" for p in chosen):
            return None
        return f"{_names(chosen)} is DOWN: jobs wait in it until an administrator sets it up"

    def _chosen(self, partition: str | None) -> list[Partition]:
        """The partitions of ``hydra.launcher.partition``, or the default one."""
        if partition is None:
            return [p for p in self.partitions.values() if p.default]
        names = partition.split(",")
        for name in names:
            if name not in self.partitions:
                raise unknown("partition", name, self.partitions)
        return [self.partitions[name] for name in names]


def _names(partitions: list[Partition]) -> str:
    return f"partition {','.join(p.name for p in partitions)}"


def read() -> Limits:
    """Ask Slurm. Raises ``client.SlurmError`` if the controller does not answer."""
    config = client.run(["scontrol", "show", "config"], patience_s=client.PATIENCE_S[:4])
    size, jobs = _setting(config, "MaxArraySize"), _setting(config, "MaxJobCount")
    return Limits(
        max_array_size=int(size) if size else MAX_ARRAY_SIZE,
        max_jobs=int(jobs) if jobs else None,
        partitions=parse_partitions(client.run(["scontrol", "show", "partition", "--oneliner"])),
        accounting=accounting.read(_setting(config, "ClusterName") or ""),
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
            state=fields.get("State", "UP"),
            max_minutes=parse_minutes(fields.get("MaxTime", "UNLIMITED")),
            qos=None if fields.get("QoS") in (None, "N/A") else fields["QoS"],
        )
    return partitions


def parse_minutes(text: str) -> int | None:
    """Minutes of Slurm's ``[days-]hours:minutes:seconds``; None for UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, _seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + minutes


def _setting(config: str, name: str) -> str | None:
    match = re.search(rf"^{name}\s*=\s*(\S+)", config, flags=re.MULTILINE)
    return match[1] if match else None
