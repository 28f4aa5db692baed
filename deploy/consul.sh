#!/usr/bin/env bash
# Prints the path of the program consul. Where the system has none, unpacks the Debian
# package into target/tools/consul; nothing is installed into the system. Only Debian
# bullseye has that package, so where the configured release lacks it, bullseye is
# asked on the same mirror, with lists of packages of its own below target/. Fails,
# and says so, where it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v consul; then exit 0; fi
tools=$PWD/target/tools/consul

unpack() {
  local settings
  if apt-cache show consul >/dev/null 2>&1; then deploy/unpack-package.sh consul "$tools" 2>/dev/null && return; fi
  settings=$(deploy/release-apt.sh bullseye) &&
    APT_CONFIG=$settings deploy/unpack-package.sh consul "$tools"
}

if [ ! -x "$tools/usr/bin/consul" ] && ! unpack; then
  echo "consul cannot be had here: put the program consul into PATH." >&2
  exit 1
fi
echo "$tools/usr/bin/consul"
