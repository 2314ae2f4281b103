#!/usr/bin/env bash
# The servers that forewarn asks: Debian's Prometheus and VictoriaMetrics, behind TLS and passwords, and newer ones where
# apt's mirror has them. The same history through each must give the same features.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. tests/venv.sh

need cargo=cargo curl=curl openssl=openssl python3=python3 prometheus=prometheus promtool=prometheus \
  victoria-metrics=victoria-metrics
cargo build --release --locked --quiet
forewarn=$PWD/target/release/forewarn

work=$(mktemp -d)
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
    [ "$1" != same ] || sed 's/^/      /' "$work/check.log"
  else
    echo "FAIL  $what"
    tail -n 5 "$work/check.log"
    failures=$((failures + 1))
  fi
}
skipped() { printf '\n!!!! SKIPPED: %s !!!!\n\n' "$*" >&2; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
ready() { # ready NAME CURL-ARGUMENTS...
  local name=$1
  shift
  for _ in $(seq 300); do
    curl -sf -o /dev/null --max-time 2 "$@" && return
    sleep 0.2
  done
  tail -n 20 "$work/$name.log" >&2
  exit 1
}
refuses() { # refuses WORDS COMMAND...: it fails, says so in these words, and shows no secret
  local words=$1
  shift
  ! "$@" >"$work/refused.log" 2>&1 && grep -qF -- "$words" "$work/refused.log" && ! grep -q "$password\|falsch" "$work/refused.log"
}

venv "${interchange[@]}" || {
  [ $? -eq 2 ] || exit 1
  skipped "pip cannot reach its index, so that no features were compared"
  python=
}

# An authority, a server and a client.
password=geheim-7 name=prometheus.test
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=authority" \
  -keyout "$work/ca.key" -out "$work/ca.pem" 2>/dev/null
certify() { # certify NAME
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" \
    -addext "subjectAltName=DNS:$1" -keyout "$work/$1.key" -out "$work/$1.csr" 2>/dev/null
  openssl x509 -req -in "$work/$1.csr" -CA "$work/ca.pem" -CAkey "$work/ca.key" -CAcreateserial -days 2 \
    -copy_extensions copy -out "$work/$1.pem" 2>/dev/null
}
certify "$name"
certify client.test
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=another" \
  -keyout "$work/other.key" -out "$work/other.pem" 2>/dev/null
# The hash is of $password.
cat >"$work/web.yml" <<YAML
tls_server_config:
  {cert_file: $work/$name.pem, key_file: $work/$name.key, client_auth_type: RequireAndVerifyClientCert, client_ca_file: $work/ca.pem}
basic_auth_users: {forewarn: '\$2b\$04\$qu6pBL3aGrIgndNQUJxqmOAmgEdz454IBpZI/cdRizo0xeAuRWdtm'}
YAML
printf %s "$password" >"$work/password"
printf falsch >"$work/wrong"

# Ends now, so that the queries find it. VictoriaMetrics wants milliseconds.
"$forewarn" simulate history --targets 8 --days 2 --seed 11 --output "$work/history.om" 2>/dev/null
range=(--start "$(date -u -d '46 hours ago' +%FT%H:%M:00Z)" --end "$(date -u -d '1 minute ago' +%FT%H:%M:00Z)")
awk '!/^#/ { $NF = sprintf("%.0f", $NF * 1000); print }' "$work/history.om" >"$work/history.prom"
echo 'scrape_configs: []' >"$work/prometheus.yml"

# Each sets $port, and $how: the section prometheus of the config.
start_prometheus() { # start_prometheus NAME PROMETHEUS PROMTOOL ARGUMENTS...
  local name=$1 prometheus=$2 promtool=$3
  shift 3
  "$promtool" tsdb create-blocks-from openmetrics --max-block-duration=720h "$work/history.om" "$work/$name" >/dev/null
  port=$(free_port)
  "$prometheus" --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/$name" --storage.tsdb.retention.time=10y \
    --web.listen-address="127.0.0.1:$port" "$@" >"$work/$name.log" 2>&1 &
  pids+=($!)
}
start_victoria() { # start_victoria NAME PROGRAM
  local url
  port=$(free_port)
  "$2" -storageDataPath="$work/$1" -retentionPeriod=10y -httpListenAddr="127.0.0.1:$port" -tls -tlsCertFile="$work/$name.pem" \
    -tlsKeyFile="$work/$name.key" -httpAuth.username=forewarn -httpAuth.password="$password" >"$work/$1.log" 2>&1 &
  pids+=($!)
  url=https://$name:$port
  local curl=(--cacert "$work/ca.pem" --resolve "$name:$port:127.0.0.1" -u "forewarn:$password")
  ready "$1" "${curl[@]}" "$url/health"
  curl -sf "${curl[@]}" -T "$work/history.prom" -X POST "$url/api/v1/import/prometheus"
  curl -sf "${curl[@]}" "$url/internal/force_flush" "$url/internal/resetRollupResultCache" >/dev/null
  how="{url: 'https://127.0.0.1:$port', basic_auth: {username: forewarn, password_file: $work/password},
    tls_config: {ca_file: $work/ca.pem, server_name: $name}}"
}

export API_HOST=127.0.0.1 API_PORT=8000 MODEL_PATH=$work/models DATA_PATH=$work/state
configure() { # configure NAME HOW: the demo's config as it is, and one that leaves nothing to the server's own rules
  {
    echo "prometheus: $2"
    sed '/^prometheus:/,/^$/d' deploy/demo/config.yaml
  } >"$work/$1.yaml"
  # Not at whole minutes, of which Prometheus 2 takes both and the others one.
  sed -E 's/increase\((fleet_errors_total\{[^}]*\})\[5m\]\)/\1/; s/fleet_[a-z_]+\{[^}]*\}/last_over_time(&[270s])/' \
    "$work/$1.yaml" >"$work/$1-strict.yaml"
}
asks() { # asks NAME HOW: everything that forewarn asks of a server
  configure "$1" "$2"
  check "$1: every query is answered" "$forewarn" check queries --config.file "$work/$1.yaml"
  [ -n "$python" ] || return 0
  for config in "$1" "$1-strict"; do
    check "$config: the training matrix is read" \
      "$forewarn" dataset export --config.file "$work/$config.yaml" "${range[@]}" --output "$work/$config.parquet"
  done
}
same() { "$python" tests/upstream.py "$@"; }
compare() { # compare NAME DIFFERS: with the first server
  [ -n "$python" ] || return 0
  check "$1: the same features as from prometheus-2.42, with last_over_time" same "$work/prometheus-2.42-strict.parquet" "$work/$1-strict.parquet"
  check "$1: as the demo asks, its own staleness and windows make a difference" \
    same "$work/prometheus-2.42.parquet" "$work/$1.parquet" --differs "$2"
}

start_prometheus prometheus-2.42 prometheus promtool --web.config.file="$work/web.yml"
ready prometheus-2.42 --cacert "$work/ca.pem" --cert "$work/client.test.pem" --key "$work/client.test.key" -u "forewarn:$password" \
  --resolve "$name:$port:127.0.0.1" "https://$name:$port/-/ready"
tls="ca_file: $work/ca.pem, server_name: $name"
certificate="cert_file: $work/client.test.pem, key_file: $work/client.test.key"
auth="basic_auth: {username: forewarn, password_file: $work/password}"
url="url: 'https://127.0.0.1:$port'"
asks prometheus-2.42 "{$url, $auth, tls_config: {$tls, $certificate}}"
refused() { # refused WHAT WORDS HOW
  configure refused "$3"
  check "prometheus-2.42: $1" refuses "$2" "$forewarn" check queries --config.file "$work/refused.yaml"
}
refused "a wrong password is refused" "check the credentials" "{$url, ${auth/$work\/password/$work\/wrong}, tls_config: {$tls, $certificate}}"
refused "without a client certificate there is no connection" "failed to reach" "{$url, $auth, tls_config: {$tls}}"
refused "another name than the certificate's is refused" "not valid for name" "{$url, $auth, tls_config: {ca_file: $work/ca.pem, $certificate}}"
refused "an unknown authority is refused" "UnknownIssuer" "{$url, $auth, tls_config: {ca_file: $work/other.pem, server_name: $name, $certificate}}"

start_victoria victoria-metrics-1.79 victoria-metrics
asks victoria-metrics-1.79 "$how"
compare victoria-metrics-1.79 0.2

newer=target/newer
if [ -x "$newer/usr/bin/prometheus" ] && [ -x "$newer/usr/bin/victoria-metrics" ] || unpack forky "$newer" prometheus promtool victoria-metrics; then
  "$newer/usr/bin/prometheus" --version 2>&1 | head -n 1
  start_prometheus prometheus-3 "$newer/usr/bin/prometheus" "$newer/usr/bin/promtool"
  ready prometheus-3 "http://127.0.0.1:$port/-/ready"
  asks prometheus-3 "{url: 'http://127.0.0.1:$port'}"
  compare prometheus-3 1
  start_victoria victoria-metrics-newer "$newer/usr/bin/victoria-metrics"
  asks victoria-metrics-newer "$how"
  compare victoria-metrics-newer 0.2
else
  skipped "apt's mirror does not have the suite forky, so that newer servers were not tried"
fi
[ "$failures" -eq 0 ] || { echo "$failures checks failed"; exit 1; }
