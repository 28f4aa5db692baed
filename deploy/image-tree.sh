#!/usr/bin/env bash
# Puts into target/image what is to be in the image of puddle when it is built with
# PUDDLE_FROM=ready: a `puddle` that was built already, without what only debuggers read,
# and the authorities that this machine trusts. Fails where the program would not run in
# the image, whose Debian may be older than this machine.
#
#   deploy/image-tree.sh PUDDLE
set -euo pipefail
cd "$(dirname "$0")/.."

# The C library of the image's Debian.
newest=2.36
needed=$(objdump -T "$1" | grep -o 'GLIBC_2[.0-9]*' | sed 's/GLIBC_//' | sort -uV | tail -n 1)
if [ "$(printf '%s\n' "$needed" $newest | sort -V | tail -n 1)" != $newest ]; then
  echo "$1 needs glibc $needed, and the image has $newest" >&2
  exit 1
fi
rm -rf target/image
install -D --strip "$1" target/image/usr/local/bin/puddle
install -D -m 644 /etc/ssl/certs/ca-certificates.crt target/image/etc/ssl/certs/ca-certificates.crt
