#!/bin/bash
# A member of an ensemble, or a server alone, after ZOO_MY_ID and ZOO_SERVERS.
# A session may last twenty ticks; HBase asks for two minutes, so that it survives a machine that stalls.
set -eu
{
  echo "tickTime=${ZOO_TICK_TIME:-6000}"
  echo "initLimit=${ZOO_INIT_LIMIT:-10}"
  echo "syncLimit=${ZOO_SYNC_LIMIT:-5}"
  echo "dataDir=/data"
  echo "dataLogDir=/datalog"
  echo "clientPort=2181"
  echo "maxClientCnxns=0"
  echo "4lw.commands.whitelist=*"
  echo "admin.enableServer=false"
  for server in ${ZOO_SERVERS:-}; do echo "$server"; done
} >/zookeeper/conf/zoo.cfg
[ -e /data/myid ] || echo "${ZOO_MY_ID:-1}" >/data/myid
exec java -cp '/zookeeper/lib/*:/zookeeper/conf' org.apache.zookeeper.server.quorum.QuorumPeerMain /zookeeper/conf/zoo.cfg
