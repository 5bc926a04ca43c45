"""Which limits on submission concern a job. The tables are sacctmgr's own, of Slurm 22.05."""

from __future__ import annotations

import pytest

from sweep.slurm.accounting import SubmitLimit, parse
from sweep.slurm.arrays import NoRoom, Task, plan_arrays
from sweep.slurm.limits import Limits, parse_partitions
from sweep.slurm.options import SlurmOptions
from sweep.slurm.queue import QueuedJob

# DefaultAccount,Account,Partition,MaxSubmit,GrpSubmit,QOS,DefaultQOS
USER = "lab|lab||9||debug,normal|\nlab|vision||||long|\nlab|root||||debug,normal|debug\n"
ROOT = "|normal|\nroot|debug,normal|\n"
# Name,Flags,MaxSubmitPU,MaxSubmitPA,GrpSubmit
QOS = "normal||50||\ndebug||1||\nlong|OverPartQOS||70|80\ncrowd|DenyOnLimit|2||\n"


def limits(
    account: str | None = None,
    qos: str | None = None,
    *,
    partition_qos: str | None = None,
    table: str = QOS,
) -> list[SubmitLimit]:
    return parse(USER, ROOT, table).limits(account, qos, "gpu", partition_qos)


def test_a_qos_that_is_not_asked_for_limits_nothing() -> None:
    assert limits() == [SubmitLimit(50, qos="normal")], "the root account's default"
    assert limits(qos="debug") == [SubmitLimit(1, qos="debug")]
    assert limits(account="root") == [SubmitLimit(1, qos="debug")], "its default qos"
    assert limits(account="vision") == [
        SubmitLimit(70, qos="long"),
        SubmitLimit(80, qos="long"),
    ], "its only qos"


def test_the_partitions_qos_goes_first_and_the_association_last() -> None:
    assert limits(partition_qos="crowd") == [SubmitLimit(2, partition="gpu")]
    both = limits(account="vision", partition_qos="crowd")
    assert both[0] == SubmitLimit(2, partition="gpu"), "long says nothing of users"
    over = QOS.replace("OverPartQOS||", "OverPartQOS|7|")
    assert limits(account="vision", partition_qos="crowd", table=over)[0].jobs == 7
    unlimited = QOS.replace("normal||50", "normal||")
    assert limits(table=unlimited) == [SubmitLimit(9, account="lab")]


def test_without_a_database_nothing_is_limited() -> None:
    assert parse("", "", "").limits(None, None, "gpu", None) == []


def in_queue(count: int, **fields: str) -> list[QueuedJob]:
    values = {"account": "lab", "qos": "normal", "partition": "gpu", **fields}
    return [
        QueuedJob(job_id=str(i), state="PENDING", user="me", reason="", comment="", **values)
        for i in range(count)
    ]


def test_each_kind_of_job_keeps_the_limit_that_concerns_it() -> None:
    partitions = parse_partitions("PartitionName=gpu Default=YES State=UP QoS=N/A\n")
    allowed = Limits(1001, 20000, partitions, parse(USER, ROOT, QOS))
    slurm = SlurmOptions(canary_min=0, per={"method": {"mart": {"qos": "debug"}}})
    tasks = [Task(i, {"method": ["at", "mart"][i % 2]}) for i in range(80)]
    queued = in_queue(15) + in_queue(30, qos="other", account="vision")
    planned = plan_arrays(tasks, slurm, allowed, queued=queued)
    assert [(a.resources.qos, len(a.elements)) for a in planned] == [(None, 35), ("debug", 1)]
    with pytest.raises(NoRoom, match="allows 1 jobs of yours of qos debug in the queue and 1 are"):
        plan_arrays(tasks, slurm, allowed, queued=in_queue(1, qos="debug"))
