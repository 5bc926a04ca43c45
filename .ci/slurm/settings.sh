# Settings of the one-machine Slurm, shared by start.sh, write_conf.sh and stop.sh. Set them in
# the environment; two clusters can run side by side with different $SLURM_STATE and $SLURM_PORT.
# shellcheck shell=bash disable=SC2034
state=${SLURM_STATE:-/var/tmp/rehearsal-slurm}
SLURM_PORT=${SLURM_PORT:-7700}                       # this one and the next few are used
SLURM_NODES=${SLURM_NODES:-4}
SLURM_GPUS=${SLURM_GPUS:-2}                          # per node
SLURM_MAX_ARRAY_SIZE=${SLURM_MAX_ARRAY_SIZE:-1001}   # Slurm's default
SLURM_MAX_SUBMIT_JOBS=${SLURM_MAX_SUBMIT_JOBS:--1}   # -1: no limit
SLURM_SHORT_MINUTES=${SLURM_SHORT_MINUTES:-2}           # Slurm warns up to a minute early
cluster=rehearsal
database_socket=$state/mysql-run/socket

# running NAME [COMMAND]: is the process in run/NAME.pid there, of that command, and not a zombie
# (the first process of a container often does not bury them)? Ids are used again, hence the name.
running() {
    local pid
    pid=$(cat "$state/run/$1.pid" 2>/dev/null) && [ -n "$pid" ] &&
        grep -qs "^Name:[[:space:]]*${2:-$1}\$" "/proc/$pid/status" &&
        ! grep -qs "^State:[[:space:]]*Z" "/proc/$pid/status"
}
