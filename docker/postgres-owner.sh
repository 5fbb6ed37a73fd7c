#!/bin/sh
# Run once, when the database server makes its data: the role that the larders connect as. It owns
# its database and is no superuser.
set -eu
psql --set=ON_ERROR_STOP=1 --set=password="$LARDER_PASSWORD" --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE larder LOGIN PASSWORD :'password';
CREATE DATABASE larder OWNER larder;
SQL
