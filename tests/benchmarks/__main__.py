"""``make bench``: every benchmark in a process of its own, as ratios within one run."""

from __future__ import annotations

import subprocess
import sys

NAMES = ("planning", "training", "attacks", "measures", "analysis", "tracking")


def main() -> int:
    """Run all of them; the exit status says how many failed."""
    failed = []
    for name in sys.argv[1:] or NAMES:
        print(f"\n== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}"]).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
