#!/bin/sh
# Writes the stack's variables into the agent's configuration, for whoever shares the volume; then runs the command.
set -eu
for file in /pinpoint-agent/profiles/*/pinpoint.config; do
  put() { [ -z "$2" ] || sed -i "s|^$1=.*|$1=$2|" "$file"; }
  put profiler.transport.grpc.collector.ip "${COLLECTOR_IP:-}"
  put profiler.transport.grpc.agent.collector.port "${PROFILER_TRANSPORT_AGENT_COLLECTOR_PORT:-}"
  put profiler.transport.grpc.metadata.collector.port "${PROFILER_TRANSPORT_METADATA_COLLECTOR_PORT:-}"
  put profiler.transport.grpc.stat.collector.port "${PROFILER_TRANSPORT_STAT_COLLECTOR_PORT:-}"
  put profiler.transport.grpc.span.collector.port "${PROFILER_TRANSPORT_SPAN_COLLECTOR_PORT:-}"
  put profiler.transport.module "${PROFILER_TRANSPORT_MODULE:-}"
  put profiler.sampling.type "${PROFILER_SAMPLING_TYPE:-}"
  put profiler.sampling.counting.sampling-rate "${PROFILER_SAMPLING_COUNTING_SAMPLING_RATE:-1}"
  put profiler.sampling.percent.sampling-rate "${PROFILER_SAMPLING_PERCENT_SAMPLING_RATE:-}"
  put profiler.sampling.new.throughput "${PROFILER_SAMPLING_NEW_THROUGHPUT:-}"
  put profiler.sampling.continue.throughput "${PROFILER_SAMPLING_CONTINUE_THROUGHPUT:-}"
  # An agent that comes before its collector tells who it is again soon, not five minutes later.
  put profiler.agentInfo.send.retry.interval 10000
done
trap 'exit 143' TERM INT
"$@" &
wait $!
