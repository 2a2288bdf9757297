#!/usr/bin/env bash
# Installs the servers that the tests start for themselves, where it may; says loudly what is missing where it may not.
# The servers are programs only: none is started here, tests run private instances on free ports.
# usage: tools/servers.sh
set -uo pipefail

say() { printf 'servers: %s\n' "$*"; }

#: program or file that a test looks for, and the Debian package that brings it
needs=(
  "redis-server:redis-server"
  "redis-sentinel:redis-sentinel"
  "/usr/lib/rabbitmq/bin/rabbitmq-server:rabbitmq-server"
  "openssl:openssl"
  "strace:strace"
)

missing=()
for need in "${needs[@]}"; do
  program=${need%%:*} package=${need##*:}
  command -v "$program" >/dev/null 2>&1 || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0

loud() {
  printf '%s\n' '' '!!! servers: not installed: '"${missing[*]}" "!!! servers: $1" \
    "!!! servers: the tests that need them will be SKIPPED" '' >&2
  exit 0
}

command -v apt-get >/dev/null || loud 'this is not a Debian machine; install them by hand'
as_root=()
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || loud "run: sudo apt-get install ${missing[*]}"
  as_root=(sudo -n)
fi

say "installing ${missing[*]} with apt-get (their services are kept from starting)"
# a package's own service must not start: the tests want private instances, and the machine may not want another
policy=/usr/sbin/policy-rc.d
made_policy=
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod +x "$policy"
  made_policy=yes
fi
log=$(mktemp)
trap 'rm -f "$log"; [ -z "$made_policy" ] || "${as_root[@]}" rm -f "$policy"' EXIT
"${as_root[@]}" apt-get -qq update >"$log" 2>&1 &&
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1 ||
  { tail -5 "$log" >&2; loud 'apt-get could not install them'; }
say 'ready'
