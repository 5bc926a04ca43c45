"""Running Slurm's commands: a clean environment, patience with a busy controller, clear errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

# Messages of a controller that is overloaded, restarting or out of reach for a moment: the same
# command may work a little later. Everything else Slurm says is an answer.
_BUSY = (
    "Socket timed out",
    "Unable to contact slurm controller",
    "Resource temporarily unavailable",
    "Slurm backup controller in standby mode",
    "Rate limit exceeded",
    "RPC rate limit",
    "Zero Bytes were transmitted or received",
    "Connection refused",
    "Connection timed out",
    "Transport endpoint is not connected",
)
TIMEOUT_S = 60.0
PATIENCE_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0)  # about three minutes in all


class SlurmError(RuntimeError):
    """Slurm refused a command; the message is its own."""


class SlurmBusy(SlurmError):
    """Slurm did not answer: whether the command took effect is not known."""


def clean_environment() -> dict[str, str]:
    """The environment without what an enclosing job left in it.

    Submitted from inside a job (an interactive one, say), sbatch would pass that job's binding,
    memory and task counts on to the new ones. SLURM_CONF says which cluster this is, so it stays.
    """
    inherited = ("SLURM_", "SBATCH_", "SRUN_", "SLURMD_", "PMIX_", "PMI_")
    return {
        name: value
        for name, value in os.environ.items()
        if name == "SLURM_CONF" or not name.startswith(inherited)
    }


@contextmanager
def cleaned() -> Iterator[None]:
    """This process with the clean environment, for code that starts sbatch by itself."""
    kept = dict(os.environ)
    clean = clean_environment()
    for name in set(kept) - set(clean):
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


def require() -> None:
    """Raise ``ValueError`` where there is no Slurm at all."""
    if shutil.which("sbatch") is None:
        raise ValueError(
            "there is no Slurm on this machine (no sbatch); run this on a login node of the "
            "cluster, or use hydra/launcher=local"
        )


def run(command: Sequence[str], *, patience_s: Sequence[float] = ()) -> str:
    """Standard output of a Slurm command, tried again after each of ``patience_s`` while busy.

    Only for commands that may run twice without harm.

    Raises:
        SlurmBusy: no answer, to the end.
        SlurmError: an answer, and it was no.
    """
    for delay in patience_s:
        try:
            return _run_once(command)
        except SlurmBusy:
            time.sleep(delay)
    return _run_once(command)


def _run_once(command: Sequence[str]) -> str:
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=clean_environment(),
        )
    except FileNotFoundError:
        raise SlurmError(f"{command[0]} is not installed here") from None
    except subprocess.TimeoutExpired:
        raise SlurmBusy(f"{command[0]} did not answer within {TIMEOUT_S:.0f} s") from None
    if result.returncode == 0:
        return result.stdout
    raise error_from(result.stderr or result.stdout or f"{command[0]} failed without a word")


def error_from(text: str) -> SlurmError:
    """The error for what a Slurm command printed: busy, or refused."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    message = "; ".join(lines[-3:])
    return SlurmBusy(message) if any(mark in text for mark in _BUSY) else SlurmError(message)
