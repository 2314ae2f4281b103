#!/usr/bin/env bash
# The status page in a real Chromium, of forewarn on a real Prometheus: a simulated fleet of five, and 5,000 targets, some with
# hostile names. FOREWARN names the binary; PICTURES a folder that pictures go to.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. tests/venv.sh

forewarn=${FOREWARN:-target/release/forewarn}
if [ -z "${FOREWARN:-}" ]; then cargo build --release --locked --quiet; fi
need chromium=chromium prometheus=prometheus promtool=prometheus
status=0
venv "${browser[@]}" || status=$?
if [ "$status" -eq 2 ]; then
  echo "SKIP  the status page in a browser: Python's index cannot be reached"
  exit 0
fi
[ "$status" -eq 0 ] || exit 1

base=$((20000 + RANDOM % 10000))
prometheus=http://127.0.0.1:$base
dir=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null
  rm -rf "$dir"
}
trap finish EXIT

"$forewarn" simulate history --targets 5 --days 1 --seed 3 --upcoming-failure 8m --fleet "$dir/fleet.json" --output "$dir/few.om" 2>"$dir/simulate.log"
"$python" tests/page.py many >"$dir/many.om"
for fleet in few many; do
  promtool tsdb create-blocks-from openmetrics --max-block-duration=720h "$dir/$fleet.om" "$dir/tsdb" >"$dir/promtool.log"
done
echo 'scrape_configs: []' >"$dir/prometheus.yml"
prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/tsdb" --storage.tsdb.retention.time=10y \
  --web.listen-address="127.0.0.1:$base" >"$dir/prometheus.log" 2>&1 &
pids+=($!)

serve() { # serve NAME JOB PORT
  sed "s/job=\"fleet\"/job=\"$2\"/" deploy/demo/config.yaml >"$dir/$1.yaml"
  printf 'page: {grafana_url: https://grafana.example.com/g}\n' >>"$dir/$1.yaml"
  FOREWARN_PROMETHEUS_URL=$prometheus MODEL_PATH=models DATA_PATH=$dir/$1 "$forewarn" serve --config.file "$dir/$1.yaml" \
    --web.listen-address "127.0.0.1:$3" >"$dir/$1.log" 2>&1 &
  pids+=($!)
}
ready() { # ready URL: waits for it
  for _ in $(seq 300); do
    curl -sf -o /dev/null "$1" && return
    sleep 0.2
  done
  echo "FAIL  $1 does not answer" >&2
  tail -n 5 "$dir"/*.log >&2
  exit 1
}
ready "$prometheus/-/ready"
serve few fleet $((base + 1))
serve many many $((base + 2))
many=${pids[-1]}
ready "http://127.0.0.1:$((base + 1))/-/ready"
ready "http://127.0.0.1:$((base + 2))/-/ready"
"$python" tests/page.py browse "http://127.0.0.1:$((base + 1))" "http://127.0.0.1:$((base + 2))" "$many" "${PICTURES:-}"
