"""Weights & Biases as a view of the results: never in the way, rebuilt from files when needed.

``LiveRun`` and ``write_run`` are what a task calls. ``sync``, ``dashboard`` and ``cleanup`` are
modules of their own, for the commands that bring W&B up to date afterwards.
"""

from sweep.tracking.live import LiveRun, drain, write_run
from sweep.tracking.settings import TrackingSettings

__all__ = ["LiveRun", "TrackingSettings", "drain", "write_run"]
