#!/bin/sh
# `zkServer.sh start-foreground`, and `zkServer.sh status`.
set -eu
case "${1:-}" in
  start-foreground)
    # ZK_SERVER_HEAP and SERVER_JVMFLAGS are those of ZooKeeper's own script.
    # shellcheck disable=SC2086
    exec /opt/zookeeper/java/bin/java "-Xmx${ZK_SERVER_HEAP:-1000}m" ${SERVER_JVMFLAGS:-} \
      -cp '/opt/zookeeper/jars/*' org.apache.zookeeper.server.quorum.QuorumPeerMain /conf/zoo.cfg
    ;;
  status) echo srvr | nc -w 2 127.0.0.1 2181 | grep '^Mode:' ;;
  *) echo "usage: zkServer.sh start-foreground|status" >&2; exit 2 ;;
esac
