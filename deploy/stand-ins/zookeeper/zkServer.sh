#!/bin/sh
# `zkServer.sh start-foreground`, and `zkServer.sh status`.
set -eu
case "${1:-}" in
  start-foreground)
    path=
    for jar in zookeeper zookeeper-jute netty-all netty-buffer netty-codec netty-common \
      netty-handler netty-resolver netty-transport netty-transport-native-unix-common \
      netty-transport-native-epoll metrics-core snappy-java slf4j-api slf4j-simple; do
      path=$path:/usr/share/java/$jar.jar
    done
    # ZK_SERVER_HEAP and SERVER_JVMFLAGS are those of ZooKeeper's own script.
    # shellcheck disable=SC2086
    exec java "-Xmx${ZK_SERVER_HEAP:-1000}m" ${SERVER_JVMFLAGS:-} -cp "${path#:}" \
      org.apache.zookeeper.server.quorum.QuorumPeerMain /conf/zoo.cfg
    ;;
  status) echo srvr | nc -w 2 127.0.0.1 2181 | grep '^Mode:' ;;
  *) echo "usage: zkServer.sh start-foreground|status" >&2; exit 2 ;;
esac
