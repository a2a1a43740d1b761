#!/bin/sh
# Sets everything up in .venv and runs the tests. Needs Python 3.11 or newer with pip; no GPU, no data.
# Arguments go to pytest: sh tests/run.sh tests/crypto/test_keys.py -x
# An answer within two minutes, without trainings and real processes: sh tests/run.sh -m "not slow"
set -eu
cd "$(dirname "$0")/.."
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
case "${1:-}" in
# Many of them: two files at a time, with a thread each, as small networks use two threads badly.
"" | -m) OMP_NUM_THREADS=1 exec .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@" ;;
*) exec .venv/bin/python -m pytest "$@" ;;
esac
