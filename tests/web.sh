#!/usr/bin/env bash
# TLS and authentication of forewarn's listener with real clients, by the files in deploy/: curl, a Prometheus that scrapes,
# an Alertmanager that sends. FOREWARN names the binary.
set -euo pipefail
cd "$(dirname "$0")/.."

forewarn=${FOREWARN:-target/release/forewarn}
if [ -z "${FOREWARN:-}" ]; then cargo build --release --locked --quiet; fi
base=$((20000 + RANDOM % 20000))
port=$base prometheus_port=$((base + 1)) alertmanager_port=$((base + 2))
url=https://127.0.0.1:$port
prometheus=http://127.0.0.1:$prometheus_port
dir=$(mktemp -d)
failures=0
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  rm -rf "$dir"
}
trap finish EXIT
check() { # check WHAT COMMAND...
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then echo "ok    $what"; else
    echo "FAIL  $what"
    failures=$((failures + 1))
  fi
}
soon() { # soon COMMAND...: whether it succeeds within 30 s
  for _ in $(seq 150); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.2
  done
  return 1
}

password='planted password' token=planted-token
# Of that password.
hash='$2b$10$CCCCCCCCCCCCCCCCCCCCC.glkhMcaYzIObsTT28B50L18E7o1kIum'
certify() { # certify NAME: a certificate of the authority for 127.0.0.1
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -addext 'subjectAltName=IP:127.0.0.1' \
    -keyout "$dir/$1.key" -out "$dir/$1.csr" 2>/dev/null
  openssl x509 -req -in "$dir/$1.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 2 -copy_extensions copy \
    -out "$dir/$1.pem" 2>/dev/null
}
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority \
  -keyout "$dir/ca.key" -out "$dir/ca.pem" 2>/dev/null
for name in forewarn renewed client; do certify "$name"; done
cp "$dir/ca.pem" "$dir/clients-ca.pem"
printf '%s' "$password" >"$dir/forewarn.password"
printf 'the-token-before\n%s\n' "$token" >"$dir/forewarn.token"
printf '%s' "$token" >"$dir/sent.token"

serve() { # in a subshell, which becomes forewarn
  FOREWARN_PROMETHEUS_URL=$prometheus MODEL_PATH=models DATA_PATH=$dir/data LOG_LEVEL=debug exec "$forewarn" serve \
    --config.file deploy/demo/config.yaml --web.listen-address "127.0.0.1:$port" --web.config.file "$dir/web-config.yml"
}
cp deploy/web-config.yml "$dir/web-config.yml"
status=0
(serve) >"$dir/refused" 2>&1 || status=$?
check "the example is refused until it has a password (exit $status)" test "$status" = 2
check "and says why" grep -q 'basic_auth_users.prometheus: is not a bcrypt hash' "$dir/refused"
sed -i "s|<bcrypt hash>|'$hash'|" "$dir/web-config.yml"
check "with one it is right" "$forewarn" check web "$dir/web-config.yml"
serve >"$dir/log" 2>&1 &
pids+=($!)

sed -E -e "s|^    # (scheme\|tls_config\|basic_auth): |    \1: |" -e "s|/etc/prometheus/forewarn-ca.pem|$dir/ca.pem|" \
  -e "s|/etc/prometheus/forewarn.password|$dir/forewarn.password|" -e "s|127.0.0.1:8000|127.0.0.1:$port|" \
  -e "s|127.0.0.1:9093|127.0.0.1:$alertmanager_port|" -e "s|\.\./\.\./rules|$PWD/rules|" -e 's|_interval: 15s|_interval: 1s|' \
  deploy/prometheus/scrape-forewarn.yml >"$dir/prometheus.yml"
prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/tsdb" \
  --web.listen-address="127.0.0.1:$prometheus_port" >"$dir/prometheus.log" 2>&1 &
pids+=($!)
sed -E -e "s|^        # (http_config:\|  tls_config: \|  authorization: )|        \1|" -e "s|/etc/alertmanager/forewarn-ca.pem|$dir/ca.pem|" \
  -e "s|/etc/alertmanager/forewarn.token|$dir/sent.token|" -e "s|http://127.0.0.1:8000|$url|" \
  deploy/alertmanager/receiver-forewarn.yml >"$dir/alertmanager.yml"
prometheus-alertmanager --config.file="$dir/alertmanager.yml" --storage.path="$dir/alertmanager" --cluster.listen-address= \
  --web.listen-address="127.0.0.1:$alertmanager_port" >"$dir/alertmanager.log" 2>&1 &
pids+=($!)

code() { curl -s --cacert "$dir/ca.pem" -o /dev/null -w '%{http_code}' "$@"; }
as_user=(-u "prometheus:$password")
as_sender=(-H "Authorization: Bearer $token")
json=(-H 'Content-Type: application/json' -d '{"cpu_usage": 91, "memory_usage": 97}')
is() { test "$(code "${@:2}")" = "$1"; }
get() { curl -sf --cacert "$dir/ca.pem" "${as_user[@]}" "$url$1"; }
alert='[{"labels": {"alertname": "Planted", "instance": "web-1"}, "annotations": {"summary": "for forewarn"}}]'

check "curl reads with a password" soon is 200 "${as_user[@]}" "$url/-/healthy"
for path in / /metrics /-/healthy /-/ready /api/v1/targets /docs; do check "not $path without one" is 401 "$url$path"; done
check "nor with a wrong one" is 401 -u prometheus:guessed "$url/metrics"
check "nor as somebody else" is 401 -u "nobody:$password" "$url/metrics"
check "nor with the token for writing" is 401 "${as_sender[@]}" "$url/metrics"
check "an authority that is not ours is refused" test "$(curl -s -o /dev/null -w '%{http_code}' "$url/-/healthy" || true)" = 000
check "there is no answer in the clear" test "$(curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port/-/healthy" || true)" = 000
check "the health check gets an answer without both" "$forewarn" check health --url "$url"
check "TLS 1.2 works" is 200 --tls-max 1.2 "${as_user[@]}" "$url/-/healthy"
check "/predict answers a user" is 200 "${as_user[@]}" "${json[@]}" "$url/predict"
check "/predict answers nobody else" is 401 "${json[@]}" "$url/predict"
check "the webhook takes nothing without credentials" is 401 "${json[@]}" "$url/webhook/alertmanager"
check "with the token it looks at the body" is 400 "${as_sender[@]}" "${json[@]}" "$url/webhook/alertmanager"

scraped() { curl -sf "$prometheus/api/v1/query" --data-urlencode "query=$1" | jq -e '.data.result[0].value[1] == "1"'; }
check "Prometheus scrapes over TLS with its password" soon scraped 'up{job="forewarn"}'
check "Alertmanager is there" soon curl -sf "http://127.0.0.1:$alertmanager_port/-/ready"
check "Alertmanager takes an alert" curl -sf -H 'Content-Type: application/json' -d "$alert" "http://127.0.0.1:$alertmanager_port/api/v2/alerts"
delivered() { get /api/v1/alerts | jq -e '.alerts[] | select(.labels.alertname == "Planted")'; }
check "Alertmanager delivers over TLS with its token" soon delivered

shown() { openssl s_client -connect "127.0.0.1:$port" </dev/null 2>/dev/null | openssl x509 -noout -subject | grep -q "CN = $1"; }
check "the certificate is the first one" shown forewarn
cp "$dir/renewed.pem" "$dir/forewarn.pem"
cp "$dir/renewed.key" "$dir/forewarn.key"
check "a renewed certificate is served without a restart" soon shown renewed
cp "$dir/web-config.yml" "$dir/right.yml"
echo 'basic_auth_users: {prometheus: planted}' >"$dir/web-config.yml"
check "a broken file is refused and said so" soon grep -q 'changed web config is not taken' "$dir/log"
check "the one before stays in force" is 200 "${as_user[@]}" "$url/metrics"
sed 's/^  # client_/  client_/' "$dir/right.yml" >"$dir/web-config.yml"
by_certificate=(--cert "$dir/client.pem" --key "$dir/client.key")
check "client certificates can be demanded without a restart" soon is 000 "${as_user[@]}" "$url/-/healthy"
check "who has one gets in" is 200 "${by_certificate[@]}" "${as_user[@]}" "$url/-/healthy"

for path in / /metrics /api/v1/targets /api/v1/alerts /api/v1/model; do
  curl -s --cacert "$dir/ca.pem" "${by_certificate[@]}" "${as_user[@]}" "$url$path"
done >"$dir/answers"
check "there are answers" test -s "$dir/answers"
for secret in "$password" planted-token the-token-before "${hash:7:40}" "$(sed -n 2p "$dir/forewarn.key")" "$(printf 'prometheus:%s' "$password" | base64)"; do
  check "no secret in log and answers" test -z "$(grep -lF -- "$secret" "$dir/log" "$dir/refused" "$dir/answers" || true)"
done
if [ "$failures" -gt 0 ]; then
  tail -n 20 "$dir"/*.log "$dir/log"
  echo "$failures checks failed"
  exit 1
fi
