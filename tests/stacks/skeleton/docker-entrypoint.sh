#!/bin/sh
# As the image of mysql: an empty data folder is filled from the files, a full one is taken as it is.
. /skeleton/lib
data=/var/lib/mysql
if [ ! -d "$data/$MYSQL_DATABASE" ]; then
  say "initializing $MYSQL_DATABASE for $MYSQL_USER"
  mkdir "$data/new"
  for table in $(sed -n 's/^CREATE TABLE `*\([A-Za-z0-9_]*\).*/\1/p' /docker-entrypoint-initdb.d/*.sql); do
    touch "$data/new/$table"
  done
  mv "$data/new" "$data/$MYSQL_DATABASE"
fi
exec /skeleton/play
