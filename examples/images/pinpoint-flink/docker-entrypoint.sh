#!/bin/bash
# Flink's own JobManager with a job that only listens where pinpoint's does, or a TaskManager, by the first word.
set -eu
opens=()
for package in java.lang java.net java.io java.nio java.lang.reflect java.text java.time java.util \
  java.util.concurrent java.util.concurrent.atomic java.util.concurrent.locks sun.nio.ch; do
  opens+=("--add-opens=java.base/$package=ALL-UNNAMED")
done
java=(java "${opens[@]}" -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dlog4j.configurationFile=/opt/flink/conf/log4j2.properties)
path='/opt/flink/lib/*:/opt/flink/conf'

# answers NAME PORT: waits up to two minutes, then fails.
answers() {
  for _ in $(seq 120); do
    (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null && return
    sleep 1
  done
  echo "flink: $1:$2 does not answer" >&2
  exit 1
}

me=$(hostname -I | cut -d' ' -f1)
case ${1:-} in
  standalone-job)
    answers "${PINPOINT_ZOOKEEPER_ADDRESS:-zoo1}" 2181
    exec "${java[@]}" -Xmx192m -cp "$path:/opt/flink/usrlib" \
      org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint \
      --configDir /opt/flink/conf --job-classname StandInJob -p 1 \
      -D jobmanager.rpc.address="${JOB_MANAGER_RPC_ADDRESS:-localhost}" -D jobmanager.rpc.port=6123 \
      -D jobmanager.bind-host=0.0.0.0 -D rest.bind-address=0.0.0.0 -D rest.port=8081
    ;;
  taskmanager)
    answers "${JOB_MANAGER_RPC_ADDRESS:?}" 6123
    exec "${java[@]}" -Xmx192m -XX:MaxDirectMemorySize=128m -cp "$path" \
      org.apache.flink.runtime.taskexecutor.TaskManagerRunner --configDir /opt/flink/conf \
      -D jobmanager.rpc.address="$JOB_MANAGER_RPC_ADDRESS" -D jobmanager.rpc.port=6123 \
      -D taskmanager.host="$me" -D taskmanager.bind-host=0.0.0.0 \
      -D taskmanager.data.port=6121 -D taskmanager.rpc.port=6122 \
      -D taskmanager.cpu.cores=1.0 -D taskmanager.memory.task.heap.size=100m \
      -D taskmanager.memory.task.off-heap.size=0b -D taskmanager.memory.managed.size=16m \
      -D taskmanager.memory.network.min=32m -D taskmanager.memory.network.max=32m \
      -D taskmanager.memory.framework.heap.size=64m -D taskmanager.memory.framework.off-heap.size=64m \
      -D taskmanager.memory.jvm-metaspace.size=96m \
      -D taskmanager.memory.jvm-overhead.min=64m -D taskmanager.memory.jvm-overhead.max=64m
    ;;
  *)
    exec "$@"
    ;;
esac
