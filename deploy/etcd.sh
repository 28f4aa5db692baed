#!/usr/bin/env bash
# Prints the path of the program etcd. Where the system has none, unpacks the Debian
# package into target/tools/etcd; nothing is installed into the system. Fails, and
# says so, where it cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v etcd; then exit 0; fi
tools=$PWD/target/tools/etcd
if [ ! -x "$tools/usr/bin/etcd" ] && ! deploy/unpack-package.sh etcd-server "$tools"; then
  echo "etcd cannot be had here: install the package etcd-server." >&2
  exit 1
fi
echo "$tools/usr/bin/etcd"
