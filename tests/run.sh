#!/bin/sh
# Sets everything up in .venv and runs the tests. Needs Python 3.11 or newer with pip; no GPU, no data.
# Arguments go to pytest: sh tests/run.sh tests/test_keys.py -x
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
exec .venv/bin/python -m pytest "$@"
