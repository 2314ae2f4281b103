#!/usr/bin/env bash
# Real machines: the Server Machine Dataset through a real Prometheus, forewarn trained and backtested on it through PromQL, and
# the table of docs/real-data.md, with Python's trees on the very same rows. Takes an hour or so on two cores.
#
#   tests/real_data.sh [--data FILE] [--horizons "10 30 60"] [--signals "all mapped"] [--table FILE]
#     --data FILE      smd.csv.gz (default: $SMD, else ../shared/data/smd/smd.csv.gz)
#     --horizons LIST  minutes
#     --signals LIST   all: each of the 38 columns is a signal of its own; mapped: what comes near forewarn's own signals
#     --table FILE     write the table into this file, between its two marks, instead of to stdout
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

data=${SMD:-../shared/data/smd/smd.csv.gz} horizons="10 30 60" signals="all mapped" table='' port=28290
while [ $# -gt 0 ]; do
  case $1 in
    --data | --horizons | --signals | --table)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
  esac
done
[ -r "$data" ] || {
  echo "there is no $data: give the file with --data or SMD. docs/real-data.md says what it holds and where it comes from" >&2
  exit 1
}
need cargo=cargo curl=curl python3=python3 prometheus=prometheus promtool=prometheus
cargo build --release --locked --quiet
. benches/python.sh
forewarn=target/release/forewarn

work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid"; wait; rm -rf "$work"' EXIT
echo "backfilling $data" >&2
"$python" tests/real_data.py openmetrics "$data" >"$work/smd.om"
promtool tsdb create-blocks-from openmetrics --max-block-duration=720h "$work/smd.om" "$work/data" >/dev/null
rm "$work/smd.om"
echo 'scrape_configs: []' >"$work/prometheus.yml"
# A sample counts for its own minute only, so that a machine whose recording has ended is seen to have ended.
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --storage.tsdb.retention.time=100y \
  --query.lookback-delta=59s --web.listen-address="127.0.0.1:$port" 2>"$work/prometheus.log" &
pid=$!
until curl -sf -o /dev/null "http://127.0.0.1:$port/-/ready"; do sleep 0.2; done
export FOREWARN_PROMETHEUS_URL=http://127.0.0.1:$port

read -r start end targets < <("$python" tests/real_data.py span "$data")
for kind in $signals; do
  for horizon in $horizons; do
    run=$work/$kind-$horizon
    echo "== $kind signals, horizon $horizon minutes" >&2
    "$python" tests/real_data.py config "$data" --signals "$kind" --horizon "$horizon" --targets "$targets" >"$run.yaml"
    range=(--config.file "$run.yaml" --start "$start" --end "$end")
    "$forewarn" train "${range[@]}" --out "$run" --output json >"$run.train.json"
    # The test slice again, through the command that users judge a model with: it must come to the same.
    from=$("$python" -c 'import json, sys; print(int(json.load(open(sys.argv[1]))["start"]))' "$run.train.json")
    "$forewarn" backtest --config.file "$run.yaml" --model "$run" --start "$from" --end "$end" --allow-overlap --output json >"$run.backtest.json"
    "$forewarn" dataset export "${range[@]}" --model "$run" --output "$run.parquet"
    "$python" benches/peers.py "$run.parquet" --levels --max-rows 40000 --min-child-weight 1 --min-samples-leaf 1 --output "$run.peers.json" >&2
    rm "$run.parquet"
  done
done
"$python" tests/real_data.py table "$work" --signals $signals --horizons $horizons ${table:+--into "$table"}
