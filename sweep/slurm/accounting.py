"""How many jobs a user may have in the queue: the limits of the account and the qos in use.

A user may often use more qos than a job asks for, one of them for a single debugging job, say.
Only those count that a job is going to have: what it asks for, or else the defaults, and its
partition's qos. Of limits of one kind the first that is set counts, as in Slurm: the partition's
qos, the job's qos, the association.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from getpass import getuser

from sweep.slurm import client
from sweep.slurm.queue import QueuedJob

_USER = "DefaultAccount,Account,Partition,MaxSubmit,GrpSubmit,QOS,DefaultQOS"
_ROOT = "User,QOS,DefaultQOS"
_QOS = "Name,Flags,MaxSubmitPU,MaxSubmitPA,GrpSubmit"


@dataclass(frozen=True)
class SubmitLimit:
    """At most ``jobs`` of this user in the queue, of an account, qos or partition; None: any."""

    jobs: int
    account: str | None = None
    qos: str | None = None
    partition: str | None = None

    def used(self, queued: Sequence[QueuedJob]) -> int:
        """How many of the user's jobs count."""
        return sum(
            self.account in (None, job.account)
            and self.qos in (None, job.qos)
            and (self.partition is None or self.partition in job.partition.split(","))
            for job in queued
        )

    def __str__(self) -> str:
        scope = {"account": self.account, "qos": self.qos, "partition": self.partition}
        return "".join(f" of {kind} {name}" for kind, name in scope.items() if name)


@dataclass(frozen=True)
class Association:
    """What a user may do in an account. Empty ``partition``: in every partition."""

    account: str
    partition: str
    max_submit: int | None
    group_submit: int | None
    qos: str | None  # of jobs that ask for none


@dataclass(frozen=True)
class Qos:
    """Limits on submission of a quality of service; each None where there is none."""

    per_user: int | None
    per_account: int | None
    group: int | None
    over_partition: bool  # it goes before the partition's


@dataclass(frozen=True)
class Accounting:
    """What Slurm's database says of this user; empty where there is none."""

    default_account: str | None = None
    associations: tuple[Association, ...] = ()
    qos: Mapping[str, Qos] = field(default_factory=dict)

    def limits(
        self, account: str | None, qos: str | None, partition: str | None, partition_qos: str | None
    ) -> list[SubmitLimit]:
        """Limits of jobs that ask for this, None where they leave it to Slurm."""
        mine = self._association(account or self.default_account, partition)
        known = self.qos
        name = qos or (mine.qos if mine else None)
        found: list[tuple[Qos, dict[str, str | None]]] = []
        if partition_qos is not None and partition_qos in known:
            found.append((known[partition_qos], {"partition": partition}))
        if name is not None and name in known:
            position = 0 if known[name].over_partition else len(found)
            found.insert(position, (known[name], {"qos": name}))
        kinds = [
            [(q.per_user, where) for q, where in found],
            [(q.per_account, where) for q, where in found],
            [(q.group, where) for q, where in found],
        ]
        if mine:
            where = {"account": mine.account, "partition": mine.partition or None}
            kinds[0].append((mine.max_submit, where))
            kinds[2].append((mine.group_submit, where))
        first = [next(((n, w) for n, w in kind if n is not None), None) for kind in kinds]
        return [SubmitLimit(limit[0], **limit[1]) for limit in first if limit]

    def _association(self, account: str | None, partition: str | None) -> Association | None:
        """The association that Slurm takes: one for just this partition goes first."""
        fitting = [
            a for a in self.associations if a.account == account and a.partition in ("", partition)
        ]
        return max(fitting, key=lambda a: a.partition != "", default=None)


def read(cluster: str) -> Accounting:
    """Ask Slurm's database about this user on ``cluster``."""
    show = ["sacctmgr", "--noheader", "--parsable2", "--readonly", "show"]
    here = f"cluster={cluster}"
    try:
        user = client.run(
            [*show, "user", "withassoc", "where", f"user={getuser()}", here, f"format={_USER}"]
        )
        root = client.run([*show, "assoc", "where", "account=root", here, f"format={_ROOT}"])
        return parse(user, root, client.run([*show, "qos", f"format={_QOS}"]))
    except client.SlurmError:
        return Accounting()  # many clusters have no database


def parse(user: str, root: str, qos: str) -> Accounting:
    """From sacctmgr's tables of the user's associations, of the root account's, and of the qos."""
    everybody = [names for of, *names in _rows(root) if not of]
    fallback = _default_qos(*everybody[0]) if everybody else None
    rows = _rows(user)
    associations = tuple(
        Association(
            account,
            partition,
            _number(most),
            _number(group),
            _default_qos(allowed, default) or fallback,
        )
        for _, account, partition, most, group, allowed, default in rows
    )
    found = {
        name: Qos(_number(per_user), _number(per_account), _number(group), "OverPartQOS" in flags)
        for name, flags, per_user, per_account, group in _rows(qos)
    }
    return Accounting(rows[0][0] if rows else None, associations, found)


def _default_qos(allowed: str, default: str) -> str | None:
    """The qos of a job that asks for none: the default one, or the only one."""
    return default or (allowed if allowed and "," not in allowed else None)


def _rows(table: str) -> list[list[str]]:
    return [line.split("|") for line in table.splitlines() if line]


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None
