#!/usr/bin/env bash
# Prints the address of the Debian mirror that this machine is set to, from its own
# sources of packages. Fails where there is none.
set -euo pipefail

mirror=$(awk '/^URIs:/{print $2; exit} /^deb /{print ($2 ~ /^\[/) ? $4 : $2; exit}' \
  /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
if [ -z "$mirror" ]; then
  echo "this machine has no mirror of Debian" >&2
  exit 1
fi
echo "$mirror"
