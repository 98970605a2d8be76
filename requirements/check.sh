#!/bin/sh
# Says in one sentence what this machine lacks for `make demo` and `make test`, and how to get it.
set -eu
PYTHON=${PYTHON:-python3}

fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

command -v "$PYTHON" >/dev/null 2>&1 ||
  fail "No '$PYTHON' on this machine: install Python 3.10 or newer (sudo apt install python3 python3-venv python3-dev), or name one with PYTHON=python3.x."

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "'$PYTHON' is Python $("$PYTHON" -c 'import platform; print(platform.python_version())'), but 3.10 or newer is needed: name another with PYTHON=python3.x."

version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
  fail "'$PYTHON' cannot make virtual environments: sudo apt install python$version-venv"

header=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_paths()["include"] + "/Python.h")')
[ -f "$header" ] ||
  fail "The C headers of '$PYTHON' are missing ($header): sudo apt install python$version-dev"

if ! command -v gcc >/dev/null 2>&1 || ! command -v g++ >/dev/null 2>&1; then
  fail "gcc and g++ are needed to build the ROS 2 interfaces: sudo apt install g++"
fi

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) ;;
  *)
    fail "ROS 2 as Python wheels exists only for Linux on x86_64, and this is $(uname -s) on $(uname -m): use an apt ROS 2 and 'colcon build' in ros2_ws (see README.md), or the containers in docker/."
    ;;
esac
