#!/bin/sh
# A broker after a file and its overrides, at the ZooKeeper of ZOOKEEPER_HOST.
exec java -Xmx256m -Dlog4j.configuration=file:/etc/kafka/log4j.properties -cp '/opt/kafka/libs/*' kafka.Kafka "$@" \
  --override zookeeper.connect="${ZOOKEEPER_HOST:-localhost}:${ZOOKEEPER_PORT:-2181}"
