#!/bin/bash
# As the image of MySQL is used: an empty data folder gets a root password, a database, a user and the files of
# /docker-entrypoint-initdb.d; one that is full is served as it is.
set -euo pipefail
data=/var/lib/mysql socket=/run/mysqld/mysqld.sock
[ "${1:-}" = mysqld ] || exec "$@"
shift
options=(--user=mysql --datadir="$data" --socket="$socket" --innodb-buffer-pool-size=64M --performance-schema=OFF)
if [ ! -e "$data/.initialized" ]; then
  : "${MYSQL_ROOT_PASSWORD:?MYSQL_ROOT_PASSWORD must be set for a new data folder}"
  echo "initializing $data"
  # What a start that was cut short left is not trusted.
  find "$data" -mindepth 1 -delete
  mariadb-install-db --user=mysql --datadir="$data" --skip-test-db --auth-root-authentication-method=normal >/dev/null
  mariadbd "${options[@]}" --skip-networking &
  server=$!
  until mariadb-admin --socket="$socket" ping >/dev/null 2>&1; do
    kill -0 $server
    sleep 0.2
  done
  ask() { mariadb --socket="$socket" -uroot "$@"; }
  name=${MYSQL_DATABASE:-}
  [ -z "$name" ] || ask -e "CREATE DATABASE \`$name\`"
  if [ -n "${MYSQL_USER:-}" ]; then
    ask -e "CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '${MYSQL_PASSWORD:-}'"
    [ -z "$name" ] || ask -e "GRANT ALL ON \`$name\`.* TO '$MYSQL_USER'@'%'"
  fi
  for file in /docker-entrypoint-initdb.d/*; do
    [ -e "$file" ] || continue
    echo "running $file"
    ask ${name:+"$name"} <"$file"
  done
  ask -e "CREATE USER 'root'@'%' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD'; GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;
          ALTER USER 'root'@'localhost' IDENTIFIED BY '$MYSQL_ROOT_PASSWORD'"
  kill $server
  wait $server || true
  touch "$data/.initialized"
fi
exec mariadbd "${options[@]}" --bind-address=0.0.0.0 "$@"
