#!/usr/bin/env bash
# The configs of deploy/examples against what their use cases expose, all five in one real Prometheus: each is right, each
# query returns data for every target, and failures and maintenance are found.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

port=${1:-18390}
need cargo=cargo curl=curl jq=jq prometheus=prometheus promtool=prometheus
cargo build --release --locked --quiet
forewarn=$PWD/target/release/forewarn
(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && { echo "port $port is taken; give a free one: tests/examples.sh PORT" >&2; exit 1; }

work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid"; wait; rm -rf "$work"' EXIT
failures=0
check() { # check WHAT COMMAND...
  local what=$1
  shift
  if "$@" >"$work/check.log" 2>&1; then echo "ok    $what"; else
    echo "FAIL  $what"
    tail -n 5 "$work/check.log"
    failures=$((failures + 1))
  fi
}

# A Monday at midnight, where simulated calendars begin: the same samples in any week.
end=$(date -u -d "@$((($(date +%s) - 345600) / 604800 * 604800 + 345600))" +%FT%H:%MZ)
start=$(date -u -d "$end - 7 days" +%FT%H:%MZ)
targets=6
for config in deploy/examples/*/config.yaml; do
  case=$(basename "$(dirname "$config")")
  "$forewarn" simulate history --scenario "$case" --targets "$targets" --days 7 --seed 2 --end "$end" --output "$work/$case.om" 2>/dev/null
  promtool tsdb create-blocks-from openmetrics --max-block-duration=720h "$work/$case.om" "$work/data" >/dev/null
  rm "$work/$case.om"
done
echo 'scrape_configs: []' >"$work/prometheus.yml"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --storage.tsdb.retention.time=10y \
  --web.listen-address="127.0.0.1:$port" 2>"$work/prometheus.log" &
pid=$!
for _ in $(seq 300); do
  curl -sf -o /dev/null "http://127.0.0.1:$port/-/ready" && break
  sleep 0.2
done

export FOREWARN_PROMETHEUS_URL=http://127.0.0.1:$port
all_targets() {
  "$forewarn" check queries --config.file "$1" --range 14d --output json |
    jq -e --argjson targets "$targets" '[.. | objects | select(.unit? != null and .targets == $targets)] | length == 7'
}
# Every use case has failures in this week.
labels() {
  "$forewarn" dataset export --config.file "$1" --start "$start" --end "$end" --output "$work/rows.parquet" 2>&1 | tee "$work/labels"
  grep -E '^ +[1-9][0-9]* incidents' "$work/labels"
}
for config in deploy/examples/*/config.yaml; do
  check "$config is right" "$forewarn" check config --config.file "$config"
  check "its seven signals have all $targets targets" all_targets "$config"
  check "its failures are found" labels "$config"
  sed -n 's/^ *\([0-9]* incidents\)/      \1/p' "$work/labels"
done
[ "$failures" -eq 0 ] || { echo "$failures checks failed"; exit 1; }
