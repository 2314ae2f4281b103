#!/usr/bin/env bash
# The presets of `forewarn init` against what they are for: a real Prometheus that scrapes Debian's exporters, and recorded
# expositions (tests/presets) of those that Debian does not ship. Its config must be sound, and each query that it takes
# return data. With --databases also MariaDB and PostgreSQL, whose installation takes longer than all the rest.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

need cargo=cargo curl=curl jq=jq python3=python3 prometheus=prometheus promtool=prometheus prometheus-node-exporter=prometheus-node-exporter \
  prometheus-blackbox-exporter=prometheus-blackbox-exporter redis-server=redis-server prometheus-redis-exporter=prometheus-redis-exporter \
  nginx=nginx prometheus-nginx-exporter=prometheus-nginx-exporter
databases=
if [ "${1:-}" = --databases ]; then
  databases=1
  need mariadbd=mariadb-server prometheus-mysqld-exporter=prometheus-mysqld-exporter pg_lsclusters=postgresql \
    prometheus-postgres-exporter=prometheus-postgres-exporter
fi
forewarn=${FOREWARN:-$PWD/target/release/forewarn}
[ -n "${FOREWARN:-}" ] || cargo build --release --locked --quiet

work=$(mktemp -d)
chmod 755 "$work"
pids=()
finish() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap finish EXIT
failures=0
check() { # check WHAT COMMAND...
  local what=$1
  shift
  if "$@" >"$work/check.log" 2>&1; then
    echo "ok    $what"
  else
    echo "FAIL  $what"
    tail -n 15 "$work/check.log"
    failures=$((failures + 1))
  fi
}
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
start() { # start NAME COMMAND...
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 &
  pids+=($!)
}
as() { # as USER COMMAND...: databases do not run as root
  if [ "$(id -u)" -eq 0 ]; then setpriv --reuid "$1" --regid "$1" --clear-groups "${@:2}"; else "${@:2}"; fi
}
jobs_file=$work/jobs.json
scrape() { # scrape JOB PORT [MORE-AS-JSON]
  jq -nc --arg job "$1" --arg target "127.0.0.1:$2" "{job_name: \$job, static_configs: [{targets: [\$target]}]} + ${3:-{\}}" >>"$jobs_file"
}

node=$(free_port)
start node prometheus-node-exporter --web.listen-address="127.0.0.1:$node"
scrape node "$node"

redis=$(free_port) redis_exporter=$(free_port)
start redis redis-server --port "$redis" --bind 127.0.0.1 --save '' --dir "$work" --maxmemory 64mb
start redis-exporter prometheus-redis-exporter --redis.addr "redis://127.0.0.1:$redis" --web.listen-address "127.0.0.1:$redis_exporter"
scrape redis "$redis_exporter"

nginx=$(free_port) nginx_exporter=$(free_port)
cat >"$work/nginx.conf" <<CONF
pid $work/nginx.pid; error_log $work/nginx-error.log; daemon off;
events {}
http { access_log off; server { listen 127.0.0.1:$nginx; location /status { stub_status; } location / { return 204; } } }
CONF
start nginx nginx -c "$work/nginx.conf" -e "$work/nginx-error.log"
start nginx-exporter prometheus-nginx-exporter -nginx.scrape-uri "http://127.0.0.1:$nginx/status" -nginx.retries 20 -web.listen-address "127.0.0.1:$nginx_exporter"
scrape nginx "$nginx_exporter"

blackbox=$(free_port)
printf 'modules: {http_2xx: {prober: http, timeout: 5s}}\n' >"$work/blackbox.yml"
start blackbox prometheus-blackbox-exporter --config.file="$work/blackbox.yml" --web.listen-address="127.0.0.1:$blackbox"
jq -nc --arg target "http://127.0.0.1:$nginx/" --arg exporter "127.0.0.1:$blackbox" '{job_name: "probes", metrics_path: "/probe",
  params: {module: ["http_2xx"]}, static_configs: [{targets: [$target]}], relabel_configs: [
  {source_labels: ["__address__"], target_label: "__param_target"}, {source_labels: ["__param_target"], target_label: "instance"},
  {target_label: "__address__", replacement: $exporter}]}' >>"$jobs_file"

recorded=$(free_port)
start recorded python3 tests/presets.py serve "$recorded"
for name in cadvisor kube-state-metrics spring http envoy istio; do
  scrape "$name" "$recorded" "{metrics_path: \"/$name\", honor_labels: true}"
done

if [ -n "$databases" ]; then
  mysql=$(free_port) mysql_exporter=$(free_port) user=$(id -un)
  [ "$(id -u)" -ne 0 ] || user=mysql
  install -d -o "$user" "$work/mysql"
  as "$user" mariadb-install-db --no-defaults --datadir="$work/mysql" --auth-root-authentication-method=normal >/dev/null
  start mariadb as "$user" mariadbd --no-defaults --datadir="$work/mysql" --bind-address=127.0.0.1 --port="$mysql" \
    --socket="$work/mysql/socket" --pid-file="$work/mysql/pid" --skip-name-resolve
  printf '[client]\nuser=root\nhost=127.0.0.1\nport=%s\n' "$mysql" >"$work/my.cnf"
  DATA_SOURCE_NAME="root@(127.0.0.1:$mysql)/" start mysql-exporter prometheus-mysqld-exporter --web.listen-address="127.0.0.1:$mysql_exporter"
  scrape mysql "$mysql_exporter"

  postgres=$(free_port) postgres_exporter=$(free_port) user=$(id -un)
  [ "$(id -u)" -ne 0 ] || user=postgres
  programs=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
  install -d -o "$user" "$work/postgres"
  as "$user" "$programs/initdb" -D "$work/postgres" -U postgres --auth=trust >/dev/null
  start postgres as "$user" "$programs/postgres" -D "$work/postgres" -h 127.0.0.1 -p "$postgres" -k "$work/postgres"
  DATA_SOURCE_NAME="postgresql://postgres@127.0.0.1:$postgres/postgres?sslmode=disable" start postgres-exporter \
    prometheus-postgres-exporter --web.listen-address="127.0.0.1:$postgres_exporter"
  scrape postgres "$postgres_exporter"
fi

jq -s '{global: {scrape_interval: "1s"}, scrape_configs: .}' "$jobs_file" >"$work/prometheus.yml"
python3 tests/presets.py history "127.0.0.1:$node" >"$work/history.om"
promtool tsdb create-blocks-from openmetrics "$work/history.om" "$work/tsdb" >/dev/null
port=$(free_port)
url=http://127.0.0.1:$port
start prometheus prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" --storage.tsdb.retention.time=30d \
  --web.listen-address="127.0.0.1:$port"
query() { curl -sf "$url/api/v1/query" --data-urlencode "query=$1" | jq -r '.data.result[0].value[1] // empty'; }
expected=$(wc -l <"$jobs_file")
for _ in $(seq 150); do
  [ "$(query 'count(count_over_time(up[30s]) > 4 and up == 1)')" = "$expected" ] && break
  sleep 0.3
done
# Queries are asked at whole minutes.
sleep $((62 - 10#$(date +%S)))
check "all $expected jobs are scraped" test "$(query 'count(up == 1)')" = "$expected"

init() { "$forewarn" init --prometheus.url "$url" "$@"; }
left_out() { jq -r '[.survey.signals[] | select(.left_out) | .name] | join(" ")' "$work/$1.json"; }
preset() { # preset NAME [SIGNAL-WITHOUT-DATA-HERE...]
  local name=$1
  shift
  check "$name: a config is written" init --preset "$name" --config.file "$work/$name.yaml" --output text
  init --preset "$name" --config.file "$work/$name.yaml" --force --output json >"$work/$name.json" 2>/dev/null || true
  check "$name: left out are [$*], and no more: [$(left_out "$name")]" test "$(left_out "$name")" = "$*"
  check "$name: each failure that counts has its series" \
    jq -e '[.survey.failures[] | select(.left_out // "" | test("no series"))] | map(.name) | . - ["replication_broken", "replica_disconnected", "replica_behind", "certificate_expired"] == []' "$work/$name.json"
  check "$name: check config" "$forewarn" check config --config.file "$work/$name.yaml"
  check "$name: check queries" "$forewarn" check queries --config.file "$work/$name.yaml"
}
# Swap and pressure are the kernel's, not the exporter's.
has() { [ -n "$(query "$1")" ] || echo "$2"; }
preset node $(has 'node_memory_SwapTotal_bytes > 0' swap_usage) $(has node_pressure_memory_stalled_seconds_total memory_stalled)
preset blackbox certificate_left
preset nginx
preset redis
preset kubernetes
preset spring
preset http event_loop_lag
preset envoy
preset istio
if [ -n "$databases" ]; then
  preset mysql replication_lag
  # Older exporters know it by a query of the user's only.
  preset postgres replication_lag
fi

# What it counts, and what it chooses by itself.
init --config.file "$work/first.yaml" --output json >"$work/first.json" 2>/dev/null
check "hosts come first" test "$(jq -r .survey.preset "$work/first.json")" = node
check "the others are named" jq -e '[.also_found[].preset] - ["node"] | contains(["kubernetes", "spring", "http", "redis"])' "$work/first.json"
check "six incidents of one host and one of another are counted" \
  test "$(jq -c '.survey.failures[] | select(.name == "down") | .incidents' "$work/first.json")" = '{"incidents":7,"targets":2}'
check "alerts about a target are counted" \
  test "$(jq -c '.survey.alerts' "$work/first.json")" = '[{"elsewhere":0,"incidents":1,"names":["DiskFull"],"severity":"critical","targets":1}]'
refuses() { # refuses CODE WORDS COMMAND...
  local code=$1 words=$2 status=0
  shift 2
  "$@" >"$work/refused.log" 2>&1 || status=$?
  [ "$status" -eq "$code" ] && grep -qF -- "$words" "$work/refused.log"
}
check "a config that exists is not replaced" refuses 2 "replace it with --force" init --config.file "$work/first.yaml"
[ -n "$databases" ] || check "a preset without targets is refused" refuses 1 "returns no series" init --preset mysql --config.file "$work/none.yaml"
[ "$failures" -eq 0 ] || { echo "$failures checks failed"; exit 1; }
