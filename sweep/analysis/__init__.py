"""The verdict of a study: which measures go with the target, where, and how surely."""

from __future__ import annotations

from sweep.analysis import report
from sweep.analysis.comparison import Comparison, compare
from sweep.analysis.correlation import correlate
from sweep.analysis.selection import Selection, select
from sweep.analysis.study import Analysis, analyse
from sweep.analysis.table import usable
from sweep.analysis.terminal import terminal_table
from sweep.analysis.user_claims import read_claims

__all__ = [
    "Analysis",
    "Comparison",
    "Selection",
    "analyse",
    "compare",
    "correlate",
    "read_claims",
    "report",
    "select",
    "terminal_table",
    "usable",
]
