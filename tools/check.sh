#!/usr/bin/env bash
# Everything that reads the code without running it. Runs all checks, then fails if one of them failed.
set -uo pipefail
cd "$(dirname "$0")/.."
bin=$1
failed=()

step() {
  local name=$1 log
  shift
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    printf 'check: %-16s ok\n' "$name"
  else
    printf 'check: %-16s FAILED\n' "$name"
    cat "$log"
    failed+=("$name")
  fi
  rm -f "$log"
}

step format "$bin/ruff" format --check .
step lint "$bin/ruff" check .
step mypy "$bin/mypy"
step pyright "$bin/pyright"
step imports "$bin/lint-imports"
step spelling "$bin/codespell"
step links "$bin/python" tools/check_links.py

if [ ${#failed[@]} -gt 0 ]; then
  printf 'check: failed: %s\n' "${failed[*]}" >&2
  exit 1
fi
