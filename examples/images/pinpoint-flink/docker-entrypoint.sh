#!/bin/bash
# Flink's own JobManager with a job that only listens where pinpoint's does, or a TaskManager, by the first word.
set -eu
opens=()
for package in java.lang java.net java.io java.nio java.lang.reflect java.text java.time java.util \
  java.util.concurrent java.util.concurrent.atomic java.util.concurrent.locks sun.nio.ch; do
  opens+=("--add-opens=java.base/$package=ALL-UNNAMED")
done
# Flink 1.18 writes its pekko.startup-timeout where Pekko does not read it (remote.startup-timeout instead of
# remote.classic.startup-timeout), so that Pekko's 10 s would hold; Pekko takes it from a system property as well.
java=(java "${opens[@]}" -Xmx192m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
  -Dpekko.remote.classic.startup-timeout=10m -Dlog4j.configurationFile=/opt/flink/conf/log4j2.properties)
path='/opt/flink/lib/*:/opt/flink/conf:/opt/flink/usrlib'

# answers NAME PORT: waits up to ten minutes, then fails.
answers() {
  for _ in $(seq 600); do
    (exec 3<>"/dev/tcp/$1/$2") 2>/dev/null && return
    sleep 1
  done
  echo "flink: $1:$2 does not answer" >&2
  exit 1
}

# A JVM started by hand has its memory divided by hand. Nobody starts Flink again: on a stalled machine it has to wait.
cat >/opt/flink/conf/flink-conf.yaml <<END
jobmanager.rpc.address: ${JOB_MANAGER_RPC_ADDRESS:-localhost}
jobmanager.rpc.port: 6123
jobmanager.bind-host: 0.0.0.0
rest.bind-address: 0.0.0.0
rest.port: 8081
pekko.ask.timeout: 2 min
heartbeat.timeout: 300000
taskmanager.numberOfTaskSlots: 1
taskmanager.host: $(hostname -I | cut -d' ' -f1)
taskmanager.bind-host: 0.0.0.0
taskmanager.data.port: 6121
taskmanager.rpc.port: 6122
taskmanager.cpu.cores: 1.0
taskmanager.memory.task.heap.size: 100m
taskmanager.memory.task.off-heap.size: 0b
taskmanager.memory.managed.size: 16m
taskmanager.memory.network.min: 32m
taskmanager.memory.network.max: 32m
taskmanager.memory.framework.heap.size: 64m
taskmanager.memory.framework.off-heap.size: 64m
taskmanager.memory.jvm-metaspace.size: 96m
taskmanager.memory.jvm-overhead.min: 64m
taskmanager.memory.jvm-overhead.max: 64m
END

case ${1:-} in
  standalone-job)
    answers "${PINPOINT_ZOOKEEPER_ADDRESS:-zoo1}" 2181
    exec "${java[@]}" -cp "$path" \
      org.apache.flink.container.entrypoint.StandaloneApplicationClusterEntryPoint \
      --configDir /opt/flink/conf --job-classname StandInJob -p 1
    ;;
  taskmanager)
    answers "${JOB_MANAGER_RPC_ADDRESS:?}" 6123
    exec "${java[@]}" -XX:MaxDirectMemorySize=128m -cp "$path" \
      org.apache.flink.runtime.taskexecutor.TaskManagerRunner --configDir /opt/flink/conf
    ;;
  *)
    exec "$@"
    ;;
esac
