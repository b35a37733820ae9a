#!/bin/bash
# The original's order: root gives the folder away and steps down; an empty folder becomes a cluster, by a server that
# listens on its socket alone; then the server itself.
set -euo pipefail
case "${1:-}" in -*) set -- postgres "$@" ;; esac
if [ "$1" = postgres ] && [ "$(id -u)" = 0 ]; then
    install -d -m 1777 /var/run/postgresql
    mkdir -p "$PGDATA"
    chown -R postgres:postgres /var/lib/postgresql
    chmod 700 "$PGDATA"
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?the database is not initialised and no superuser password is given}"
    user=${POSTGRES_USER:-postgres} database=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
    initdb --username="$user" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") --encoding=UTF8 \
        --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C --set listen_addresses='*' \
        --set unix_socket_directories=/var/run/postgresql,/tmp
    printf '\nhost all all all scram-sha-256\n' >> "$PGDATA/pg_hba.conf"
    pg_ctl start --wait --options="-c listen_addresses=''"
    [ "$database" = postgres ] || createdb --host=/var/run/postgresql --username="$user" "$database"
    pg_ctl stop --mode=fast --wait
    unset POSTGRES_PASSWORD
fi
exec "$@"
