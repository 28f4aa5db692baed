#!/usr/bin/env bash
# Proves that a fresh machine with nothing but Rust, a C compiler and make can
# run `make demo` and `make test`: makes a root directory with debootstrap that has
# only those, clones this repository into it, and runs both there.
#
#   deploy/fresh-root.sh [DIRECTORY]     needs root, debootstrap and about 6 GB
#
# The toolchain is this machine's, copied; crates come from this machine's
# configured registry. Prints the seconds that each command took.
set -euo pipefail

repository=$(cd "$(dirname "$0")/.." && pwd)
root=${1:-$(mktemp -d)/root}
limit_seconds=900
mirror=$("$repository/deploy/mirror.sh")
release=$(. /etc/os-release && echo "$VERSION_CODENAME")

finish() {
  for mount in proc dev sys; do umount -l "$root/$mount" 2>/dev/null || true; done
  rm -rf --one-file-system "$root"
}
trap finish EXIT

mkdir -p "$root"
debootstrap --variant=minbase --include=gcc,libc6-dev,make,git,ca-certificates "$release" "$root" "$mirror" >/dev/null
sysroot=$(rustc --print sysroot)
mkdir -p "$root/opt/rust" "$root/build"
cp -a "$sysroot/." "$root/opt/rust/"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$root/root/.cargo"
for file in config.toml config credentials.toml; do
  if [ -f "$cargo_home/$file" ]; then cp "$cargo_home/$file" "$root/root/.cargo/"; fi
done
cp /etc/resolv.conf /etc/hosts "$root/etc/"
# Where this machine trusts further authorities, the root does too.
for trusted in /etc/ssl/certs/ca-certificates.crt "${SSL_CERT_FILE:-}"; do
  if [ -f "$trusted" ]; then install -D -m 644 "$trusted" "$root$trusted"; fi
done
for mount in proc dev sys; do mount --rbind "/$mount" "$root/$mount"; mount --make-rslave "$root/$mount"; done
git clone --quiet "$repository" "$root/build/rampuddle"

# What this machine's environment says of registries and proxies, and nothing else.
settings=$(env | grep -E '^(CARGO_(HTTP|NET|REGISTRIES|REGISTRY|SOURCE)_|HTTPS?_PROXY|https?_proxy|NO_PROXY|no_proxy|SSL_CERT_FILE)' || true)
inside() {
  env -i HOME=/root PATH=/opt/rust/bin:/usr/bin:/bin:/usr/sbin:/sbin LANG=C.UTF-8 \
    ${settings:+$(printf '%s\n' "$settings")} chroot "$root" /bin/sh -c "cd /build/rampuddle && $1"
}

began=$SECONDS
inside "make test"
test_seconds=$((SECONDS - began))
echo "make test from nothing: $test_seconds s"
began=$SECONDS
inside "make demo"
echo "make demo, its release build included: $((SECONDS - began)) s"
if [ "$test_seconds" -ge "$limit_seconds" ]; then
  echo "make test took $test_seconds s, the limit is $limit_seconds s" >&2
  exit 1
fi
