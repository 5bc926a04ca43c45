"""When two failures are the same one: for halting a study, and for grouping what went wrong."""

from __future__ import annotations

import re


def same_cause(reason: str) -> str:
    """A reason without what differs between equal failures: ids, addresses, numbers."""
    return re.sub(r"0x[0-9a-f]+|[0-9a-f]{16}|\d+(\.\d+)?", "#", reason)
