#!/usr/bin/env bash
# forewarn's members beside Python's XGBoost and scikit-learn's forest and logistic regression: the same exported matrix, the same
# split, the same hyperparameters, but for the linear member's penalty: scikit-learn has its own default. Exits with 1 where forewarn is clearly more than 0.005 below.
#
#   benches/parity.sh [--seed N] [--targets N] [--days N] [--max-rows N] [--repeats N]
#     --seed N      of the fleet
#     --repeats N   trainings of both sides, each with a seed of its own; measures are means over them (default 3)
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

seed=11 targets=20 days=20 max_rows=120000 repeats=3 port=28391
while [ $# -gt 0 ]; do
  case $1 in
    --seed | --targets | --days | --max-rows | --repeats)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
  esac
done
need cargo=cargo curl=curl python3=python3 prometheus=prometheus promtool=prometheus
cargo build --release --locked --quiet
. benches/python.sh

work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid"; wait; rm -rf "$work"' EXIT
end=2026-11-02T00:00:00Z
start=$(date -u -d "$end $days days ago" +%FT%H:%M:%SZ)
forewarn=target/release/forewarn
"$forewarn" simulate history --targets "$targets" --days "$days" --seed "$seed" --end "$end" --output "$work/history.om"
promtool tsdb create-blocks-from openmetrics --max-block-duration=720h "$work/history.om" "$work/data" >/dev/null
rm "$work/history.om"
echo 'scrape_configs: []' >"$work/prometheus.yml"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --storage.tsdb.retention.time=100y \
  --web.listen-address="127.0.0.1:$port" 2>"$work/prometheus.log" &
pid=$!
until curl -sf -o /dev/null "http://127.0.0.1:$port/-/ready"; do sleep 0.2; done

export FOREWARN_PROMETHEUS_URL=http://127.0.0.1:$port
for repeat in $(seq "$repeats"); do
  sed "s/^train:/&\n  seed: $repeat/" deploy/demo/config.yaml >"$work/$repeat.yaml"
  range=(--config.file "$work/$repeat.yaml" --start "$start" --end "$end")
  "$forewarn" train "${range[@]}" --origin simulated --out "$work/$repeat.model"
  "$forewarn" dataset export "${range[@]}" --model "$work/$repeat.model" --output "$work/$repeat.parquet"
done
echo
echo "fleet of $targets targets, $days days, seed $seed; $repeats trainings"
"$python" benches/peers.py "$work"/*.parquet --max-rows "$max_rows" --judge
