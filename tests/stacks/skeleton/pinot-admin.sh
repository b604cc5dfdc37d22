#!/bin/sh
. /skeleton/lib
[ "$1" = AddTable ] || exit 2
while [ $# -gt 0 ]; do
  case $1 in
    -tableConfigFile) [ -s "$2" ] || exit 1; table=$2 ;;
    -controllerHost) host=$2 ;;
    -controllerPort) port=$2 ;;
  esac
  shift
done
PATIENCE=60
need "$host:$port"
[ "$(ask "$host" "$port" table "$table")" = ok ]
