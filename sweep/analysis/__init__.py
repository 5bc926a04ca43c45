"""The verdict of a study: which measures go with the target, where, and how surely."""

from __future__ import annotations

from sweep.analysis import report
from sweep.analysis.correlation import correlate
from sweep.analysis.table import usable
from sweep.analysis.terminal import terminal_table

__all__ = ["correlate", "report", "terminal_table", "usable"]
