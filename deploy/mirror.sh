#!/usr/bin/env bash
# Prints the address of the Debian mirror that this machine is set to. apt says it, which
# reads its sources wherever and however they are written. Fails where there is none.
set -euo pipefail

release=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
# The release itself, not what is added to it for security or by others.
mirror=$(apt-get update --print-uris 2>/dev/null |
  sed -nE "s,^'([^']*)/dists/($release|stable)/InRelease'.*,\1,p" | sed -n 1p) || mirror=
if [ -z "$mirror" ]; then
  echo "this machine has no mirror of Debian: apt has no source of $release" >&2
  exit 1
fi
echo "$mirror"
