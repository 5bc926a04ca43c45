#!/usr/bin/env bash
# A W&B-compatible server for the tests of tracking. Its licence (CC BY-NC 4.0) forbids commercial
# use, so it is no dependency of the project: only the tests talk to it, locally.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python -m pip install --quiet --disable-pip-version-check "openwandb>=0.5.25,<0.6"
