#!/bin/sh
# AddTable, as far as asking the controller goes.
while [ $# -gt 0 ]; do
  case $1 in
    -controllerHost) host=$2 ;;
    -controllerPort) port=$2 ;;
    -tableConfigFile) table=$2 ;;
  esac
  shift
done
[ -s "$table" ] || { echo "pinot-admin (stand-in): $table is empty" >&2; exit 1; }
for _ in $(seq 60); do
  if timeout 5 nc -w 3 "$host" "$port" -e true 2>/dev/null; then
    echo "pinot-admin (stand-in): $host:$port answers; $table would be added"
    exit 0
  fi
  sleep 1
done
echo "pinot-admin (stand-in): $host:$port does not answer" >&2
exit 1
