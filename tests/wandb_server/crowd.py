"""Many runs handed over by one light process: ``crowd.py <study folder> <payload.json>``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sweep import tracking
from sweep.tracking import TrackingSettings


def main(study_dir: Path, payload: Path) -> None:
    """Hand over all runs at once; leaving the process waits for them, as long as it may."""
    settings = TrackingSettings(jitter_s=0.0, finish_timeout_s=30.0)
    for row, history, config in json.loads(payload.read_text()):
        tracking.write_run(settings, study_dir, study_dir.name, row, Path(history), config)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
