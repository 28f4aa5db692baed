#!/usr/bin/env bash
# Prints the command that runs a ZooKeeper server in the foreground; it wants the path
# of a configuration file behind it. Takes the Debian package and a Java runtime where
# the system has them, else unpacks them below target/tools/zookeeper; nothing is
# installed into the system. Fails, and says so, where they cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=$PWD/target/tools/zookeeper
runtime_package=openjdk-17-jre-headless
# What a server needs of the package's dependencies; netty is for TLS.
packages=(libzookeeper-java libnetty-java libdropwizard-metrics-java libsnappy-java libslf4j-java)
jars=(zookeeper zookeeper-jute netty-all netty-buffer netty-codec netty-common netty-handler
  netty-resolver netty-transport netty-transport-native-unix-common netty-transport-native-epoll
  metrics-core snappy-java slf4j-api slf4j-simple)

unpack() {
  for package in "$@"; do
    if ! deploy/unpack-package.sh "$package" "$tools"; then
      echo "ZooKeeper cannot be had here: install the packages zookeeper and default-jre-headless." >&2
      exit 1
    fi
  done
}

# Debian's runtime has links to files in /etc, which lie below our folder now.
mend_links() {
  local link target
  find "$tools/usr/lib/jvm" -type l -lname '/etc/*' | while read -r link; do
    target=$(readlink "$link")
    if [ -e "$tools$target" ]; then ln -sfn "$tools$target" "$link"; fi
  done
}

# The folder with the programs of a Java runtime.
runtime() {
  if command -v java >/dev/null; then
    dirname "$(readlink -f "$(command -v java)")"
    return
  fi
  if ! compgen -G "$tools/usr/lib/jvm/*/bin/java" >/dev/null; then
    unpack "$runtime_package"
    mend_links
  fi
  dirname "$(compgen -G "$tools/usr/lib/jvm/*/bin/java" | head -n 1)"
}

folder=/usr/share/java
if [ ! -e "$folder/zookeeper.jar" ] || [ ! -e "$folder/netty-handler.jar" ]; then
  folder=$tools/usr/share/java
  # The mark says that all of them are there.
  if [ ! -e "$tools/unpacked" ]; then
    unpack "${packages[@]}"
    touch "$tools/unpacked"
  fi
fi
programs=$(runtime)
path=$(printf ":$folder/%s.jar" "${jars[@]}")
# Small and quick to start: it is for tests. The log goes to stderr.
echo "$programs/java -Xms32m -Xmx192m -XX:+UseSerialGC -XX:TieredStopAtLevel=1" \
  "-XX:-UsePerfData -cp ${path#:} org.apache.zookeeper.server.quorum.QuorumPeerMain"
