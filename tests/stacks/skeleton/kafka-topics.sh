#!/bin/sh
. /skeleton/lib
while [ $# -gt 0 ]; do
  case $1 in
    --topic) topic=$2 ;;
    --bootstrap-server) server=$2 ;;
  esac
  shift
done
PATIENCE=60
need "$server"
ask "${server%:*}" "${server##*:}" create "$topic" | grep Created
