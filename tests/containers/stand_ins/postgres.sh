set -eu
data=/var/lib/postgresql/data/db
if [ -z "${POSTGRES_PASSWORD:-}" ]; then
  echo "POSTGRES_PASSWORD: not set" >&2
  exit 1
fi
if [ ! -d "$data" ]; then
  initdb --pgdata "$data" --username "$POSTGRES_USER" --pwfile <(echo "$POSTGRES_PASSWORD") --auth scram-sha-256 --encoding UTF8 >/dev/null
  echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
  echo "CREATE DATABASE $POSTGRES_DB;" | postgres --single -D "$data" postgres >/dev/null 2>&1 || true
fi
exec postgres -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp
