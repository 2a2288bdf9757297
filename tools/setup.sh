#!/usr/bin/env bash
# Creates a virtual environment and installs into it, quietly; on failure shows what pip said.
# usage: tools/setup.sh VENV PYTHON TARGET            an editable install of TARGET, such as '.[test]'
#        tools/setup.sh VENV PYTHON -r REQUIREMENTS   the packages of a file, without the constraints
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$1 python=$2
shift 2

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in "$python" python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null && new_enough "$candidate"; then echo "$candidate"; return; fi
  done
  die "Python 3.11 or newer is needed and was not found; name one with: make PYTHON=/path/to/python3"
}

# Debian splits venv from python3; only there, and only with the rights to, we install the missing half.
install_venv_module() {
  local chosen=$1 as_root=() package
  package="$("$chosen" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  command -v apt-get >/dev/null || die "$chosen cannot make virtual environments: its venv module is missing"
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || die "Python's venv module is missing; run: sudo apt-get install $package"
    as_root=(sudo -n)
  fi
  say "installing $package with apt-get"
  "${as_root[@]}" apt-get -qq update >/dev/null || die "apt-get could not update its lists"
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get -qq install -y "$package" >/dev/null 2>&1 ||
    die "apt-get could not install $package, which $chosen needs to make virtual environments"
}

make_venv() {
  local chosen
  chosen=$(find_python)
  say "making $venv with $("$chosen" --version)"
  "$chosen" -c 'import ensurepip, venv' 2>/dev/null || install_venv_module "$chosen"
  rm -rf "$venv"
  "$chosen" -m venv "$venv" || die "could not make $venv"
}

if ! "$venv/bin/python" -c 'import pip' 2>/dev/null || ! new_enough "$venv/bin/python"; then make_venv; fi

if [ "$1" = -r ]; then
  arguments=(--upgrade -r "$2")
  say "installing the packages of $2 into $venv"
else
  arguments=(-c requirements/constraints.txt -e "$1")
  say "installing celeriac ($1) into $venv"
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "$venv/bin/python" -m pip install --quiet --no-input "${arguments[@]}" >"$log" 2>&1; then
  cat "$log" >&2
  die "pip could not install: ${arguments[*]}"
fi
say "$venv is ready"
