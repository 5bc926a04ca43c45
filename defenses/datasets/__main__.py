"""``python -m defenses.datasets [--write] NAME...``: compute the shipped pseudo-labels anew.

Says how many are true and how many agree with those shipped; ``--write`` ships the new ones.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from defenses.datasets import divide, read_source
from defenses.datasets.pseudo_labels import SHIPPED, compute, labels_key
from defenses.spec import DatasetSpec


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m defenses.datasets", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="data set with an extra pool")
    parser.add_argument("--write", action="store_true", help="replace the shipped labels")
    arguments = parser.parse_args()

    shipped = json.loads(SHIPPED.read_text())
    for name in arguments.names:
        spec = DatasetSpec(name=name)
        source = read_source(spec, Path("results/datasets"))
        parts = divide(source, spec)
        if parts.aside is None:
            parser.error(f"{name} keeps no images aside as extra data")
        labels = compute(parts.base, parts.aside, len(source.class_names))
        text = "".join(map(str, labels.tolist()))
        key = labels_key(parts.base, parts.aside)
        agree = sum(new == old for new, old in zip(text, shipped.get(key, ""), strict=False))
        true = int((labels == parts.aside.labels).sum())
        print(f"{name}: {len(text)} labels, {true} true, {agree} as shipped")  # noqa: T201
        if arguments.write:
            shipped[key] = text
    if arguments.write:
        SHIPPED.write_text(json.dumps(shipped, indent=1) + "\n")


if __name__ == "__main__":
    main()
