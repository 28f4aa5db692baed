#!/usr/bin/env bash
# Brings container images: what the engine has stays, else it is pulled, and where it
# cannot be pulled, a stand-in is built from Debian packages, under a name of its own:
# rampuddle-stand-in/NAME. What the stand-ins are, and how they differ:
# deploy/stand-ins/README.md.
#
#   deploy/images.sh IMAGE...     prints a line for each: its name, and the name of the
#                                 image that is to be used for it
set -euo pipefail
cd "$(dirname "$0")/.."

base=debian:bookworm-slim
log=$PWD/target/tools/images.log
mkdir -p target/tools

fail() {
  tail -n 5 "$log" >&2
  echo "the image $1 can neither be pulled nor built here" >&2
  exit 1
}

# The name of what stands in for an image.
stand_in_of() {
  case "$1" in
    "$base") echo rampuddle-stand-in/debian ;;
    rust:*) echo "rampuddle-stand-in/$1" ;;
    *consul:*) echo rampuddle-stand-in/consul ;;
    *zookeeper:*) echo rampuddle-stand-in/zookeeper ;;
    *etcd:*) echo rampuddle-stand-in/etcd ;;
    *) fail "$1" ;;
  esac
}

has() { docker image inspect "$1" >/dev/null 2>&1; }
# Stand-ins had official names once; they are no official images.
has_official() {
  local kind
  kind=$(docker image inspect --format '{{index .Config.Labels "rampuddle.stand-in"}}' "$1" 2>/dev/null) &&
    [ -z "$kind" ]
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
      --change "LABEL rampuddle.stand-in=debian" - "$1"
  local result=$?
  rm -rf --one-file-system "$root"
  return $result
}

# Builds an image by the Dockerfile of deploy/stand-ins/NAME. What is to lie beside that
# is told as tar wants it.
build() { # IMAGE NAME [WHAT...]
  local image=$1 name=$2
  shift 2
  tar -c -C "$PWD/deploy/stand-ins/$name" . "$@" |
    docker build --quiet --force-rm --build-arg "BASE=$base_used" \
      --label "rampuddle.stand-in=$name" --tag "$image" -
}

# The toolchain without its documents.
stand_in_for_rust() {
  local version wanted=${1#*:}
  version=$(rustc --version | awk '{print $2}')
  case "$version" in
    "${wanted%%-*}" | "${wanted%%-*}".*) ;;
    *) echo "this machine has Rust $version, not ${wanted%%-*}"; return 1 ;;
  esac
  build "$1" rust --exclude=./share --transform 's,^\./\(bin\|lib\|libexec\|etc\)\(/\|$\),toolchain/\1\2,' \
    -C "$(rustc --print sysroot)" .
}

# The services are the programs that the tests run, or their packages, unpacked: that is
# quicker than apt in a container, and needs no network there.
stand_in_for_service() { # IMAGE NAME
  local tree result
  tree=$(mktemp -d)
  "$2_into" "$tree/tree" && build "$1" "$2" -C "$tree" tree
  result=$?
  rm -rf "$tree"
  return $result
}
consul_into() { install -D "$(deploy/consul.sh)" "$1/usr/bin/consul"; }
etcd_into() {
  install -D "$(deploy/etcd.sh)" "$1/usr/bin/etcd" && deploy/unpack-package.sh etcd-client "$1"
}
# A Java runtime, and the jars that a server needs. Links lead to other places.
zookeeper_into() {
  local command java jars
  command=$(deploy/zookeeper.sh) || return 1
  java=${command%% *}
  jars=$(sed -n 's/.* -cp \([^ ]*\) .*/\1/p' <<<"$command")
  mkdir -p "$1/opt/zookeeper"/{jars,java} &&
    cp -L -t "$1/opt/zookeeper/jars" ${jars//:/ } &&
    tar -c -h --exclude=src.zip -C "$(dirname "$(dirname "$java")")" . |
    tar -x -C "$1/opt/zookeeper/java" &&
    deploy/unpack-package.sh netcat-traditional "$1" &&
    mv "$1/bin" "$1/usr/bin"
}

stand_in() {
  case "$1" in
    */debian) stand_in_for_debian "$1" ;;
    */rust:*) stand_in_for_rust "$1" ;;
    *) stand_in_for_service "$1" "${1##*/}" ;;
  esac
}

# Sets `used` to the name of an image that the engine has then.
bring() {
  used=$1
  if has_official "$1" || docker pull --quiet "$1" >>"$log" 2>&1; then return 0; fi
  used=$(stand_in_of "$1")
  if has "$used"; then return 0; fi
  if [ "$1" != "$base" ]; then
    bring "$base"
    base_used=$used
    used=$(stand_in_of "$1")
  fi
  stand_in "$used" >>"$log" 2>&1 || fail "$1"
}

: >"$log"
for image in "$@"; do
  bring "$image"
  echo "$image $used"
done
