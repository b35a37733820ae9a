#!/bin/bash
# The original's order: root gives the folder away and steps down.
set -euo pipefail
case "${1:-}" in -* | *.conf) set -- valkey-server "$@" ;; esac
if [ "$1" = valkey-server ] && [ "$(id -u)" = 0 ]; then
    chown -R valkey:valkey .
    exec setpriv --reuid=valkey --regid=valkey --clear-groups "$0" "$@"
fi
# as the original's build has it: a container's port is published or is not
[ "$1" != valkey-server ] || set -- "$@" --protected-mode no
exec "$@"
