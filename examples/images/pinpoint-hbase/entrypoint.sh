#!/bin/bash
# Master and region server; the tables once both are there. Ends when one of them ends, so that a restart policy helps.
set -u
opens=()
for package in java.lang java.lang.reflect java.io java.net java.nio java.text java.util java.util.concurrent \
  java.util.concurrent.atomic sun.nio.ch sun.nio.cs sun.security.action; do
  opens+=("--add-opens=java.base/$package=ALL-UNNAMED")
done
opens+=(--add-opens=java.base/jdk.internal.ref=ALL-UNNAMED --add-exports=java.base/jdk.internal.misc=ALL-UNNAMED)
java=(java "${opens[@]}" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dhbase.log.dir=/tmp
  -cp '/hbase/conf:/hbase/classes:/hbase/lib/*')
trap 'kill $(jobs -p) 2>/dev/null; wait; exit 143' TERM INT
# Both started anew: what an earlier life left in ZooKeeper goes by itself, when its session ends.
"${java[@]}" -Xmx"${HBASE_MASTER_HEAP:-256m}" org.apache.hadoop.hbase.master.HMaster start &
"${java[@]}" -Xmx"${HBASE_REGION_HEAP:-256m}" org.apache.hadoop.hbase.regionserver.HRegionServer start &
servers=$(jobs -p)
"${java[@]}" -Xmx64m Tables &
tables=$!
while :; do
  wait -n $servers $tables
  code=$?
  for each in $servers; do
    if ! kill -0 "$each" 2>/dev/null; then
      echo "an HBase server ended ($code); the container ends with it" >&2
      kill $(jobs -p) 2>/dev/null
      wait
      exit 1
    fi
  done
  if [ $code != 0 ]; then
    echo "the tables could not be made ($code)" >&2
    kill $(jobs -p) 2>/dev/null
    wait
    exit 1
  fi
  tables=''
done
