#!/usr/bin/env bash
# Stop the one-machine Slurm that start.sh started, with its jobs. --wipe also deletes its state.
set -euo pipefail
# shellcheck source=.ci/slurm/settings.sh
source "$(dirname "$0")/settings.sh"
export SLURM_CONF=$state/slurm.conf

stop() {
    if running "$@"; then
        local pid
        pid=$(cat "$state/run/$1.pid")
        kill "$pid"
        for _ in $(seq 100); do running "$@" || break; sleep 0.1; done
        ! running "$@" || kill -9 "$pid"
    fi
    rm -f "$state/run/$1.pid"
}

if [ -f "$SLURM_CONF" ]; then
    timeout 10 scancel --user=root ${SUDO_USER:+--user="$SUDO_USER"} 2>/dev/null || true
fi
for file in "$state"/run/gpu*.pid; do
    [ -e "$file" ] && stop "$(basename "$file" .pid)" slurmd
done
stop slurmctld
stop slurmdbd
stop mariadbd
stop munged
if [ "${1:-}" = --wipe ]; then rm -rf "$state"; fi
