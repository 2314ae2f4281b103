#!/usr/bin/env bash
# How good is forewarn where the truth is known? Trains on one simulated fleet, backtests on another, both through
# real Prometheus servers and PromQL, and prints the figures that are claimed beside those of the oracle: the true
# probability as the score, paged by the same rules.
#
#   benches/test-fleet.sh [options]
#     --train-seed N      seed of the fleet to learn from (42)
#     --train-targets N   its targets (20)
#     --train-days N      its days (30)
#     --model DIR         use this model instead of training one
#     --test-seed N       seed of the test fleet (7001, the one that nothing may be tuned on)
#     --targets N         its targets (20)
#     --days N            its days (30)
#     --unseen-mode yes|no   whether it has the failure mode that no training fleet has (yes)
#     --port N            first of two free ports for Prometheus (29090)
#     --out DIR           keep model, config and report.json there
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

train_seed=42 train_targets=20 train_days=30 model='' test_seed=7001 targets=20 days=30 unseen_mode=yes port=29090 out=''
while [ $# -gt 0 ]; do
  case $1 in
    --train-seed | --train-targets | --train-days | --test-seed | --targets | --days | --port | --model | --out | --unseen-mode)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) echo "unknown option $1; see benches/test-fleet.sh --help" >&2; exit 2 ;;
  esac
done
for number in "$train_seed" "$train_targets" "$train_days" "$test_seed" "$targets" "$days" "$port"; do
  case $number in '' | *[!0-9]*) echo "\"$number\" is not a whole number; see benches/test-fleet.sh --help" >&2; exit 2 ;; esac
done
unseen=()
case $unseen_mode in
  yes) unseen=(--unseen-mode) ;;
  no) ;;
  *) echo "--unseen-mode takes yes or no, not \"$unseen_mode\"" >&2; exit 2 ;;
esac
if [ "$train_seed" -eq "$test_seed" ] && [ -z "$model" ]; then
  echo "the test fleet must be another one: --train-seed and --test-seed are both $test_seed" >&2
  exit 2
fi

need cargo=cargo curl=curl prometheus=prometheus promtool=prometheus python3=python3
for p in "$port" "$((port + 1))"; do
  (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null && { echo "port $p is taken; choose others with --port" >&2; exit 1; }
done
cargo build --release --locked --quiet
forewarn=$PWD/target/release/forewarn

work=$(mktemp -d "${TMPDIR:-/tmp}/forewarn-test-fleet.XXXXXX")
pids=()
finish() {
  local status=$?
  trap - EXIT INT TERM
  [ ${#pids[@]} -gt 0 ] && kill "${pids[@]}" 2>/dev/null
  wait 2>/dev/null
  rm -rf "$work"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM
keep=${out:-$work}
mkdir -p "$keep"

# Mondays at midnight UTC, on which simulated calendars begin: the same options give the same fleets for ever.
train_start=1704067200 # 2024-01-01
test_start=1736121600  # 2025-01-06
last() { echo $(($1 + $2 * 86400 - 60)); }

# backfill NAME PORT FILE...: a Prometheus that holds these files.
backfill() {
  local name=$1 listen=$2 file
  shift 2
  for file in "$@"; do
    promtool tsdb create-blocks-from openmetrics --max-block-duration=720h "$file" "$work/$name" >/dev/null
    rm "$file"
  done
  echo 'scrape_configs: []' >"$work/prometheus.yml"
  prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/$name" --storage.tsdb.retention.time=100y \
    --web.listen-address="127.0.0.1:$listen" 2>"$work/$name.log" &
  pids+=($!)
  for _ in $(seq 300); do
    curl -sf -o /dev/null "http://127.0.0.1:$listen/-/ready" && return
    sleep 0.2
  done
  tail "$work/$name.log" >&2
  return 1
}

if [ -z "$model" ]; then
  end=$(last "$train_start" "$train_days")
  "$forewarn" simulate history --targets "$train_targets" --days "$train_days" --seed "$train_seed" --end "$end" \
    --output "$work/train.om"
  backfill train "$port" "$work/train.om"
  model=$keep/model
  FOREWARN_PROMETHEUS_URL=http://127.0.0.1:$port "$forewarn" train --config.file deploy/demo/config.yaml \
    --start "$train_start" --end "$end" --origin simulated --out "$model" --output json >"$keep/train.json"
fi

end=$(last "$test_start" "$days")
"$forewarn" simulate history --targets "$targets" --days "$days" --seed "$test_seed" "${unseen[@]}" --end "$end" \
  --output "$work/test.om" --oracle "$work/oracle.om"
backfill test $((port + 1)) "$work/test.om" "$work/oracle.om"
# The same incidents as in training, each with its mode, and the oracle.
{
  sed 's/up{job="fleet"} == 0/fleet_oracle_failure == 1/' deploy/demo/config.yaml
  printf '\ncompare:\n  oracle: fleet_oracle_probability\n'
} >"$keep/config.yaml"
grep -q fleet_oracle_failure "$keep/config.yaml" || { echo "deploy/demo/config.yaml has another failure query than expected" >&2; exit 1; }
# backtest CONFIG REPORT
backtest() {
  FOREWARN_PROMETHEUS_URL=http://127.0.0.1:$((port + 1)) "$forewarn" backtest --config.file "$1" \
    --model "$model" --start "$test_start" --end "$end" --output json >"$2"
}
backtest "$keep/config.yaml" "$keep/report.json"
others=()
for waits in 0s 1m 3m; do
  sed "s/^  for: 5m$/  for: $waits/" "$keep/config.yaml" >"$keep/$waits.yaml"
  grep -q "^  for: $waits$" "$keep/$waits.yaml"
  backtest "$keep/$waits.yaml" "$keep/$waits.json"
  others+=("$waits=$keep/$waits.json")
done

echo
echo "model of ${model}; test fleet: seed $test_seed, $targets targets, $days days, unseen mode: $unseen_mode"
python3 benches/test-fleet.py "$keep/report.json" "${others[@]}" "5m=$keep/report.json"
