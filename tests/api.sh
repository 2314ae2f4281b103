#!/usr/bin/env bash
# The API against its own description: schemathesis on a running server, open and behind users and tokens, both pages in a
# real Chromium, and the client examples of docs/api.md. Needs pip's index; without it this is skipped, loudly.
# FOREWARN names the binary, PICTURES a folder for the pages' pictures.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. tests/venv.sh

need cargo=cargo curl=curl jq=jq python3=python3 prometheus=prometheus promtool=prometheus chromium=chromium
skip() {
  printf '\n!!!! SKIPPED: pip cannot reach its index, so that the API was not tried against its description !!!!\n\n' >&2
  exit 0
}
venv api schemathesis==4.32.5 openapi-spec-validator==0.9.0 requests==2.34.2 pandas==3.1.1 || { [ $? -eq 2 ] && skip; exit 1; }
st=$bin/st client=$python
venv browser playwright==1.65.2 || { [ $? -eq 2 ] && skip; exit 1; }
browser=$python

forewarn=${FOREWARN:-target/release/forewarn}
if [ -z "${FOREWARN:-}" ]; then cargo build --release --locked --quiet; fi
base=$((20000 + RANDOM % 20000))
open=http://127.0.0.1:$base locked=http://127.0.0.1:$((base + 1)) prometheus=http://127.0.0.1:$((base + 2)) fleet=127.0.0.1:$((base + 3))
dir=$(mktemp -d)
pictures=${PICTURES:-$dir}
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
  if "$@" >"$dir/check.log" 2>&1; then
    echo "ok    $what"
    grep '^      ' "$dir/check.log" || true
  else
    echo "FAIL  $what"
    tail -n 60 "$dir/check.log"
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

# A day of history, so that the targets are scored at once; it ends now and goes on live.
"$forewarn" simulate history --targets 6 --days 1 --seed 3 --fleet "$dir/fleet.json" --output "$dir/history.om" 2>/dev/null
promtool tsdb create-blocks-from openmetrics "$dir/history.om" "$dir/tsdb" >/dev/null
"$forewarn" simulate live --listen "$fleet" --fleet "$dir/fleet.json" >"$dir/fleet.log" 2>&1 &
pids+=($!)
sed -e '/^rule_files/d' -e '/^alerting/,/127.0.0.1:@ALERT/d' -e 's/@SCRAPE@/2s/' -e "s/@PORT@/$base/" -e "s/127.0.0.1:@FLEET_PORT@/$fleet/" \
  deploy/demo/prometheus.yml >"$dir/prometheus.yml"
prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/tsdb" --storage.tsdb.retention.time=10y \
  --web.listen-address="${prometheus#http://}" >"$dir/prometheus.log" 2>&1 &
pids+=($!)
soon curl -sf "$prometheus/-/ready"

user='prometheus:planted password' token=planted-token
printf '%s\n' "$token" >"$dir/token"
cat >"$dir/web-config.yml" <<'YAML'
# The hash is of "planted password".
basic_auth_users: {prometheus: '$2b$10$CCCCCCCCCCCCCCCCCCCCC.glkhMcaYzIObsTT28B50L18E7o1kIum'}
forewarn: {write_credentials_file: token}
# Stricter than forewarn's own for what it does not need.
http_server_config: {headers: {X-Frame-Options: deny, X-Content-Type-Options: nosniff}}
YAML
serve() { # serve URL NAME FLAG...
  FOREWARN_PROMETHEUS_URL=$prometheus MODEL_PATH=models DATA_PATH=$dir/$2 exec "$forewarn" serve --config.file deploy/demo/config.yaml \
    --web.listen-address "${1#http://}" "${@:3}"
}
serve "$open" open >"$dir/open.log" 2>&1 &
pids+=($!)
serve "$locked" locked --web.config.file "$dir/web-config.yml" --web.enable-lifecycle >"$dir/locked.log" 2>&1 &
pids+=($!)
check "both servers are ready" soon curl -sf "$open/-/ready" --next -sf -u "$user" "$locked/-/ready"
known=$(curl -sf "$open/api/v1/targets" | jq -r '[.targets[] | select(.state == "ok")][0].target')
check "a target is scored ($known)" test "$known" != null

check "the document is valid, and every example by its schema" "$client" tests/api.py document "$open"
check "with users and tokens too" "$client" tests/api.py document "$locked" --user "$user"

export KNOWN_TARGET=$known SCHEMATHESIS_HOOKS=tests.api_hooks PYTHONPATH=.
# All checks but those that follow resources from their creation to their deletion: nothing is created or deleted here.
never=use_after_free,ensure_resource_availability,object_level_authorization
contract() { # contract URL EXCLUDED FLAG...
  "$st" --config-file tests/schemathesis.toml run "$1/openapi.json" --url "$1" --checks all --exclude-checks "$2" \
    --max-examples 25 --seed 1 --continue-on-failure --no-color "${@:3}"
}
check "schemathesis finds nothing" contract "$open" "$never"
# A request without credentials is wrong by this document, but --auth puts them back; that they are demanded is what ignored_auth
# checks, and other wrong requests are those of the open server.
check "nor where users and tokens are demanded" contract "$locked" "$never,negative_data_rejection" --auth "$user"
for part in "$open" "$locked"; do check "the server at $part lives on" curl -sf -u "$user" "$part/-/healthy"; done
check "none has panicked" test -z "$(grep -l 'panicked' "$dir/open.log" "$dir/locked.log" || true)"

check "Swagger UI and Redoc work without a network" "$browser" tests/api.py pages "$open" --pictures "$pictures"
check "with users and tokens too" "$browser" tests/api.py pages "$locked" --user "$user" --pictures "$pictures"

tests/api.py snippets docs/api.md "$dir/client" --url "$open" --prometheus "$prometheus" --target "$known"
check "the examples in curl run" bash -euo pipefail "$dir/client/curl.sh"
check "in Python" "$client" -W error "$dir/client/client.py"
check "in Python with a table" "$client" "$dir/client/batch.py"
mkdir -p target/api-client/src
cp "$dir/client/client.rs" target/api-client/src/main.rs
cat >target/api-client/Cargo.toml <<'TOML'
[package]
name = "api-client"
edition = "2024"
[dependencies]
reqwest = { version = "0.13", default-features = false, features = ["json"] }
serde = { version = "1", features = ["derive"] }
serde_json = "1"
tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
[workspace]
TOML
check "in Rust" cargo run --quiet --manifest-path target/api-client/Cargo.toml
queried() { # queried FILE FILTER: Prometheus takes every query, and its answer is as the filter wants
  grep -v '^#' "$1" | while read -r query; do
    curl -s "$prometheus/api/v1/query" --data-urlencode "query=$query" | jq -e ".status == \"success\" and ($2)" || { echo "$query"; return 1; }
  done
}
echo failure_probability >"$dir/gauge"
check "Prometheus has the gauges" soon queried "$dir/gauge" '.data.result != []'
check "the queries in PromQL return data" soon queried "$dir/client/queries.promql" '.data.result != []'
check "the others are PromQL" queried "$dir/client/quiet.promql" true
[ "$failures" -eq 0 ] || { echo "$failures checks failed"; exit 1; }
