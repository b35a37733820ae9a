#!/bin/sh
# Installs locked requirements and the project into a virtual environment: with uv when it can be had, with pip otherwise.
#   install.sh PYTHON REQUIREMENTS [VENV]
set -eu
python=$1 requirements=$2 venv=${3:-.venv}
if [ -z "$python" ]; then
    echo "headrace: no Python found, expected 3.11, 3.12 or 3.13 on PATH; install one or name it: make PYTHON=..." >&2
    exit 1
fi
# without the first stamp it is half made, or not at all
[ -e "$venv/installed" ] || rm -rf "$venv"
if [ ! -x "$venv/bin/python" ]; then
    echo "setting up $venv with $("$python" --version)"
    if ! "$python" -m venv "$venv"; then
        echo "headrace: $python cannot make a virtual environment; on Debian: apt install python3-venv" >&2
        rm -rf "$venv"
        exit 1
    fi
fi
[ -x "$venv/bin/uv" ] || "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
    -r requirements-uv.txt 2>/dev/null || echo "uv cannot be had here; pip takes a few minutes longer" >&2
echo "installing $requirements"
if [ -x "$venv/bin/uv" ]; then
    VIRTUAL_ENV="$PWD/$venv" "$venv/bin/uv" pip install --quiet --require-hashes -r "$requirements"
    VIRTUAL_ENV="$PWD/$venv" "$venv/bin/uv" pip install --quiet --no-deps --no-build-isolation --editable .
else
    # the lock is whole; without --no-deps pip 23.0 refuses a package's `mashumaro[msgpack]` (pypa/pip#9644)
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$requirements"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
fi
# beside the metadata in the environment, a second copy on the path: Airflow would find each entry point twice
rm -rf plugins/headrace.egg-info
