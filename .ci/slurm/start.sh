#!/usr/bin/env bash
# Start a real Slurm on this one machine, from Debian's packages, for tests and rehearsals:
#
#     apt-get install slurm-wlm slurmdbd munge mariadb-server
#     eval "$(.ci/slurm/start.sh)"        # as root; prints `export SLURM_CONF=...`
#     .ci/slurm/stop.sh
#
# Munge, MariaDB (socket only), slurmdbd, slurmctld and one slurmd for each of $SLURM_NODES
# nodes, each with $SLURM_GPUS GPUs that are empty files: what a job sees (CUDA_VISIBLE_DEVICES,
# limits, preemption, requeue, accounting) is Slurm's own doing. Everything lives in $SLURM_STATE.
# All daemons are reached by loopback, and need the munge key made here. Idempotent: what runs is
# left alone, what died is started again; with other settings than before, all is restarted.
#
# Partitions: `gpu` (default); `short`, the same nodes with a time limit of $SLURM_SHORT_MINUTES;
# `scavenge`, the same nodes, whose jobs are requeued as soon as one in `gpu` needs the GPU.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=.ci/slurm/settings.sh
source "$here/settings.sh"

wait_for() { # wait_for SECONDS WHAT COMMAND...
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= deadline)); then
            echo "$what did not come up; its log is in $state/log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

[ "$(id -u)" = 0 ] || { echo "start.sh must run as root: slurmd starts jobs as other users" >&2; exit 1; }
for program in munged mariadbd slurmdbd slurmctld slurmd; do
    command -v $program >/dev/null || {
        echo "$program is missing: apt-get install slurm-wlm slurmdbd munge mariadb-server" >&2
        exit 1
    }
done

install -d -m 755 "$state" "$state"/{log,run,spool,ctld,gpus}
install -d -m 700 -o munge -g munge "$state/munge"
install -d -m 755 -o munge -g munge "$state/munge-run"
install -d -m 700 -o mysql -g mysql "$state/mysql"
install -d -m 755 -o mysql -g mysql "$state/mysql-run"
before=$(cat "$state/slurm.conf" 2>/dev/null || true)
"$here/write_conf.sh"
if [ -n "$before" ] && [ "$before" != "$(cat "$state/slurm.conf")" ]; then "$here/stop.sh"; fi
export SLURM_CONF=$state/slurm.conf

if ! running munged; then
    [ -s "$state/munge/key" ] || head -c 1024 /dev/urandom >"$state/munge/key"
    chown munge:munge "$state/munge/key" && chmod 400 "$state/munge/key"
    runuser -u munge -- munged --force --key-file="$state/munge/key" --socket="$state/munge-run/socket" \
        --pid-file="$state/munge/pid" --log-file="$state/munge/log" --seed-file="$state/munge/seed"
    cp "$state/munge/pid" "$state/run/munged.pid"
fi

if ! running mariadbd; then
    if [ ! -d "$state/mysql/mysql" ]; then
        mariadb-install-db --user=mysql --datadir="$state/mysql" --skip-test-db \
            --auth-root-authentication-method=socket >"$state/log/mariadb-install.log" 2>&1
    fi
    setsid mariadbd --no-defaults --user=mysql --datadir="$state/mysql" --skip-networking \
        --socket="$database_socket" --pid-file="$state/mysql-run/pid" \
        --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0 \
        </dev/null >"$state/log/mariadbd.log" 2>&1 &
    wait_for 30 mariadbd mariadb --socket="$database_socket" -e "select 1"
    cp "$state/mysql-run/pid" "$state/run/mariadbd.pid"
fi

if ! running slurmdbd; then
    rm -f "$state/run/slurmdbd.pid"
    MYSQL_UNIX_PORT=$database_socket slurmdbd
    wait_for 30 slurmdbd sacctmgr --noheader --readonly list cluster
fi

if ! sacctmgr --noheader list cluster format=cluster | grep -q "$cluster"; then
    sacctmgr --immediate --quiet add cluster "$cluster" >/dev/null
    sacctmgr --immediate --quiet add account lab >/dev/null
    for user in root ${SUDO_USER:+"$SUDO_USER"}; do
        sacctmgr --immediate --quiet add user "$user" account=lab defaultaccount=lab >/dev/null
    done
fi
sacctmgr --immediate --quiet modify qos normal set "MaxSubmitJobsPerUser=$SLURM_MAX_SUBMIT_JOBS" >/dev/null || true

running slurmctld || slurmctld
wait_for 30 slurmctld scontrol ping
for ((node = 0; node < SLURM_NODES; node++)); do
    running "gpu$node" slurmd || slurmd -N "gpu$node"
done
all_up() { [ "$(sinfo --noheader --Node --partition=gpu --format=%T | grep -c -E '^(idle|mixed|allocated)$')" = "$SLURM_NODES" ]; }
if ! all_up; then
    # A node that died with jobs on it stays down until told otherwise.
    for _ in 1 2 3; do
        scontrol update "nodename=gpu[0-$((SLURM_NODES - 1))]" state=resume 2>/dev/null || true
        sleep 0.3
    done
    wait_for 30 "a slurmd" all_up
fi
echo "export SLURM_CONF=$SLURM_CONF"
