#!/bin/sh
# From nothing to the report table: sets everything up in .venv and runs the demo. Needs Python 3.11 or newer with pip.
# Arguments go to the demo: sh examples/quickstart.sh --method ffx
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || python3 -m venv .venv
echo "Installing segkey and what it needs into .venv (the first time takes some minutes: PyTorch is large) …"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e .
.venv/bin/segkey demo "$@"
echo
echo "From here on: . .venv/bin/activate; segkey --help"
