#!/usr/bin/env bash
# Write slurm.conf, slurmdbd.conf, gres.conf and cgroup.conf into the state folder.
set -euo pipefail
# shellcheck source=.ci/slurm/settings.sh
source "$(dirname "$0")/settings.sh"

host=$(hostname -s)
for ((gpu = 0; gpu < SLURM_GPUS; gpu++)); do ln -sf /dev/null "$state/gpus/gpu$gpu"; done
last_node=$((SLURM_NODES - 1))
last_gpu=$((SLURM_GPUS - 1))

cat >"$state/slurm.conf" <<CONF
ClusterName=$cluster
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$SLURM_PORT
SlurmUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket=$state/munge-run/socket
SlurmctldPidFile=$state/run/slurmctld.pid
SlurmdPidFile=$state/run/%n.pid
SlurmctldLogFile=$state/log/slurmctld.log
SlurmdLogFile=$state/log/%n.log
StateSaveLocation=$state/ctld
SlurmdSpoolDir=$state/spool/%n
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny

# A machine without cgroups of its own, and fewer cores than the nodes claim.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SlurmdParameters=config_overrides
MpiDefault=none

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=100000,bf_interval=2,requeue_delay=1
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
MaxArraySize=$SLURM_MAX_ARRAY_SIZE
MaxJobCount=20000
ReturnToService=2
SlurmdTimeout=15
SlurmctldTimeout=30
InactiveLimit=0
KillWait=5
MinJobAge=30
CompleteWait=0
OverTimeLimit=0

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((SLURM_PORT + 1))
AccountingStoragePass=$state/munge-run/socket
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu

GresTypes=gpu
CONF
for ((node = 0; node < SLURM_NODES; node++)); do
    echo "NodeName=gpu$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$((SLURM_PORT + 10 + node))" \
        "CPUs=8 RealMemory=8000 Gres=gpu:$SLURM_GPUS Feature=fake State=UNKNOWN"
done >>"$state/slurm.conf"
cat >>"$state/slurm.conf" <<CONF
PartitionName=DEFAULT Nodes=gpu[0-$last_node] State=UP DefMemPerCPU=500 DefaultTime=10 MaxTime=1-0
PartitionName=gpu Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=short PriorityTier=10 PreemptMode=OFF DefaultTime=$SLURM_SHORT_MINUTES MaxTime=$SLURM_SHORT_MINUTES
PartitionName=scavenge PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
CONF

cat >"$state/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$state/munge-run/socket
DbdAddr=127.0.0.1
DbdHost=$host
DbdPort=$((SLURM_PORT + 1))
SlurmUser=root
PidFile=$state/run/slurmdbd.pid
LogFile=$state/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
CommitDelay=1
CONF
chmod 600 "$state/slurmdbd.conf"
echo "Name=gpu File=$state/gpus/gpu[0-$last_gpu]" >"$state/gres.conf"
echo "CgroupPlugin=cgroup/v1" >"$state/cgroup.conf"
