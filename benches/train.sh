#!/usr/bin/env bash
# What learning costs: trains on a simulated fleet in a real Prometheus and backtests the same range, beside the time in which that
# Prometheus gives the same answers to curl.
#
#   benches/train.sh [--targets N] [--days N]
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
targets=50 days=30 port=28430
while [ $# -gt 0 ]; do
  case $1 in
    --targets | --days)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
  esac
done
need cargo=cargo curl=curl prometheus=prometheus promtool=prometheus python3=python3
cargo build --release --locked --quiet
forewarn=target/release/forewarn
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid"; wait; rm -rf "$work"' EXIT
start=1704067200 # Monday, 2024-01-01
end=$((start + days * 86400 - 60))
"$forewarn" simulate history --targets "$targets" --days "$days" --seed 42 --end "$end" --output "$work/history.om"
promtool tsdb create-blocks-from openmetrics --max-block-duration=720h "$work/history.om" "$work/data" >/dev/null
rm "$work/history.om"
echo 'scrape_configs: []' >"$work/prometheus.yml"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --storage.tsdb.retention.time=100y \
  --web.listen-address="127.0.0.1:$port" 2>"$work/prometheus.log" &
pid=$!
until curl -sf -o /dev/null "http://127.0.0.1:$port/-/ready"; do sleep 0.2; done
export FOREWARN_PROMETHEUS_URL=http://127.0.0.1:$port
queries=$(sed -n 's/^ *query: //p; /^failure:/,/^$/s/^ *- //p' deploy/demo/config.yaml | python3 -c 'import json, sys; print(json.dumps([line.strip() for line in sys.stdin]))')
python3 benches/train.py "$forewarn" "$FOREWARN_PROMETHEUS_URL" "$pid" "$start" "$end" "$work/model" "$queries"
