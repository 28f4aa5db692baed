#!/usr/bin/env bash
# Brings container images by name: what the engine has stays, else it is pulled, and
# where nothing can be pulled, a stand-in is built from Debian packages under the same
# name. What the stand-ins are, and how they differ: deploy/stand-ins/README.md.
#
#   deploy/images.sh IMAGE...     prints one line for each of them
set -euo pipefail
cd "$(dirname "$0")/.."

base=debian:bookworm-slim
log=target/tools/images.log
mkdir -p target/tools

has() { docker image inspect "$1" >/dev/null 2>&1; }

fail() {
  tail -n 5 "$log" >&2
  echo "the image $1 can neither be pulled nor built here" >&2
  exit 1
}

# Root and Debian are needed for this one only; the others build on it.
stand_in_for_debian() {
  local root mirror
  mirror=$(deploy/mirror.sh) || return 1
  command -v debootstrap >/dev/null || apt-get install -y --no-install-recommends debootstrap ||
    { apt-get update && apt-get install -y --no-install-recommends debootstrap; } || return 1
  root=$(mktemp -d)
  debootstrap --variant=minbase bookworm "$root/root" "$mirror" &&
    rm -rf "$root"/root/var/cache/apt/archives/*.deb "$root"/root/var/lib/apt/lists/* \
      "$root"/root/usr/share/{doc,man,info,locale} &&
    tar -C "$root/root" -c . | docker import --change 'CMD ["bash"]' \
      --change "LABEL rampuddle.stand-in=debootstrap" - "$1"
  local result=$?
  rm -rf --one-file-system "$root"
  return $result
}

# The toolchain without its documents, and the Dockerfile, as one build context.
stand_in_for_rust() {
  local version wanted=${1#*:}
  version=$(rustc --version | awk '{print $2}')
  case "$version" in
    "${wanted%%-*}" | "${wanted%%-*}".*) ;;
    *) echo "this machine has Rust $version, not ${wanted%%-*}"; return 1 ;;
  esac
  tar -c --exclude=./share -C "$(rustc --print sysroot)" --transform 's,^\.,toolchain,' . \
    -C "$PWD/deploy/stand-ins/rust" --transform 's,^toolchain/Dockerfile,Dockerfile,' ./Dockerfile |
    docker build --quiet --force-rm --label "rampuddle.stand-in=Rust $version" --tag "$1" -
}

stand_in_from() {
  docker build --quiet --force-rm --label "rampuddle.stand-in=$2" --tag "$1" "deploy/stand-ins/$2"
}

stand_in() {
  case "$1" in
    "$base") stand_in_for_debian "$1" ;;
    rust:*) stand_in_for_rust "$1" ;;
    *consul:*) stand_in_from "$1" consul ;;
    *zookeeper:*) stand_in_from "$1" zookeeper ;;
    *etcd:*) stand_in_from "$1" etcd ;;
    *) echo "there is no stand-in for $1"; return 1 ;;
  esac
}

bring() {
  if has "$1"; then return 0; fi
  if docker pull --quiet "$1" >>"$log" 2>&1; then return 0; fi
  if [ "$1" != "$base" ]; then bring "$base"; fi
  stand_in "$1" >>"$log" 2>&1 || fail "$1"
}

: >"$log"
for image in "$@"; do
  bring "$image"
  kind=$(docker image inspect --format '{{index .Config.Labels "rampuddle.stand-in"}}' "$image")
  echo "$image: ${kind:+stand-in, }${kind:-as published}"
done
