#!/usr/bin/env bash
# The whole chain on one machine, for real: a simulated fleet, Prometheus, Alertmanager, training, serving.
#
#   deploy/demo.sh [options]
#     --targets N             targets of the fleet (20)
#     --days N                days of history to learn from (14)
#     --seed N                seed of the fleet (1)
#     --port N                forewarn (8000)
#     --prometheus-port N     Prometheus (9090)
#     --alertmanager-port N   Alertmanager (9093)
#     --fleet-port N          exporters of the fleet (9109)
#     --exit                  end when the story is told, instead of staying up
#     --fast                  one simulated minute a second: step, horizon and every "for" shrink with it (tests use it)
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

targets=20 days=14 seed=1 port=8000 prometheus_port=9090 alertmanager_port=9093 fleet_port=9109 stay=1 fast=0
while [ $# -gt 0 ]; do
  case $1 in
    --targets | --days | --seed | --port | --prometheus-port | --alertmanager-port | --fleet-port)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
      case $2 in '' | *[!0-9]*) echo "$1 takes a whole number, not \"$2\"" >&2; exit 2 ;; esac
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    --exit) stay=0; shift ;;
    --fast) fast=1; shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) echo "unknown option $1; see deploy/demo.sh --help" >&2; exit 2 ;;
  esac
done

began=$SECONDS
say() { printf '\033[1m[%3d s]\033[0m %s\n' $((SECONDS - began)) "$*"; }
die() { echo "demo: $*" >&2; exit 1; }

need cargo=cargo curl=curl perl=perl prometheus=prometheus promtool=prometheus prometheus-alertmanager=prometheus-alertmanager
say "building forewarn (release)"
cargo build --release --locked --quiet
forewarn=$PWD/target/release/forewarn

for p in "$port forewarn --port" "$prometheus_port Prometheus --prometheus-port" \
  "$alertmanager_port Alertmanager --alertmanager-port" "$fleet_port fleet --fleet-port"; do
  read -r number what option <<<"$p"
  if (exec 3<>"/dev/tcp/127.0.0.1/$number") 2>/dev/null; then
    die "port $number (for $what) is taken; choose another one with $option"
  fi
done

work=$(mktemp -d "${TMPDIR:-/tmp}/forewarn-demo.XXXXXX")
pids=()
finish() {
  local status=$?
  trap - EXIT INT TERM
  [ ${#pids[@]} -gt 0 ] && kill "${pids[@]}" 2>/dev/null
  wait 2>/dev/null
  if [ "$status" -eq 0 ] || [ "$status" -eq 130 ]; then
    rm -rf "$work"
  else
    echo "demo: logs and data are kept in $work" >&2
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

# start NAME READY_URL COMMAND...: runs it in the background and waits until it answers.
start() {
  local name=$1 url=$2
  shift 2
  "$@" >"$work/$name.log" 2>&1 &
  local pid=$!
  pids+=("$pid")
  for _ in $(seq 300); do
    curl -sf -o /dev/null --max-time 2 "$url" && return
    kill -0 "$pid" 2>/dev/null || { tail -n 20 "$work/$name.log" >&2; die "$name did not start"; }
    sleep 0.2
  done
  tail -n 20 "$work/$name.log" >&2
  die "$name does not answer on $url"
}

prometheus_url=http://127.0.0.1:$prometheus_port
forewarn_url=http://127.0.0.1:$port

# In --fast everything that is a minute becomes a second, an hour a minute, a day 24 minutes, and
# a week on the clock holds sixty simulated ones, each with its own budget of false alarms.
scale() {
  if [ "$fast" -eq 1 ]; then
    perl -pe 's/\b(\d+)(d|h|m)\b/$2 eq "d" ? ($1 * 24) . "m" : $1 . ($2 eq "h" ? "m" : "s")/ge; s/(false_alarms_per_week:) (\d+)/$1 . " " . $2 * 60/e'
  else
    cat
  fi
}
if [ "$fast" -eq 1 ]; then
  speed=60 upcoming=3m scrape=1s lookback=5s
else
  speed=1 upcoming=13m scrape=15s lookback=5m
fi

mkdir "$work/rules" "$work/prometheus" "$work/state"
for file in rules/forewarn.rules.yml deploy/demo/fleet.rules.yml; do
  scale <"$file" >"$work/rules/$(basename "$file")"
done
scale <deploy/demo/config.yaml >"$work/config.yaml"
sed -e "s/@SCRAPE@/$scrape/; s/@PORT@/$port/; s/@ALERTMANAGER_PORT@/$alertmanager_port/; s/@FLEET_PORT@/$fleet_port/" \
  deploy/demo/prometheus.yml >"$work/prometheus.yml"
sed -e "s/@PORT@/$port/" deploy/demo/alertmanager.yml | scale >"$work/alertmanager.yml"

say "writing $days days of history of $targets simulated targets"
"$forewarn" simulate history --targets "$targets" --days "$days" --seed "$seed" --speed "$speed" \
  --upcoming-failure "$upcoming" --fleet "$work/fleet.json" --output "$work/history.om"
hero=$(sed -n 's/.*"upcoming": *{[^}]*"target": *"\([^"]*\)".*/\1/p' <(tr -d '\n' <"$work/fleet.json"))
[ -n "$hero" ] || die "fleet.json names no upcoming failure"

say "backfilling it into an empty Prometheus"
promtool tsdb create-blocks-from openmetrics --max-block-duration=720h "$work/history.om" "$work/prometheus" >"$work/backfill.log" 2>&1 ||
  { tail -n 20 "$work/backfill.log" >&2; die "promtool could not backfill"; }
rm "$work/history.om"

say "starting the fleet's exporters, Prometheus and Alertmanager"
start fleet "http://127.0.0.1:$fleet_port/" "$forewarn" simulate live --listen "127.0.0.1:$fleet_port" --fleet "$work/fleet.json"
start prometheus "$prometheus_url/-/ready" prometheus --config.file="$work/prometheus.yml" \
  --storage.tsdb.path="$work/prometheus" --storage.tsdb.retention.time=10y --query.lookback-delta="$lookback" \
  --web.listen-address="127.0.0.1:$prometheus_port"
start alertmanager "http://127.0.0.1:$alertmanager_port/-/ready" prometheus-alertmanager --config.file="$work/alertmanager.yml" \
  --storage.path="$work/alertmanager" --web.listen-address="127.0.0.1:$alertmanager_port" --cluster.listen-address=

export FOREWARN_PROMETHEUS_URL=$prometheus_url API_HOST=127.0.0.1 API_PORT=$port
export DATA_PATH=$work/state MODEL_PATH=$work/models
say "training on that history through PromQL range queries"
range=$(echo "${days}d" | scale)
"$forewarn" train --config.file "$work/config.yaml" --start "$range" || die "training failed"
say "serving"
start forewarn "$forewarn_url/-/ready" "$forewarn" serve --config.file "$work/config.yaml"

cat <<TEXT

  forewarn       $forewarn_url/            targets by risk, reasons
                 $forewarn_url/docs        API
                 $forewarn_url/metrics
  Prometheus     $prometheus_url/graph?g0.expr=failure_probability&g0.tab=0
                 $prometheus_url/alerts
  Alertmanager   http://127.0.0.1:$alertmanager_port

  Nobody told forewarn so, but $hero is degrading. Watch its failure_probability.

TEXT

get() { curl -sf --max-time 5 "$forewarn_url$1" || true; }
# The value of a series in Prometheus, empty when there is none.
prom() { promtool query instant "$prometheus_url" "$1" 2>/dev/null | sed -n '1s/.* => \([^ ]*\) @.*/\1/p' || true; }

high='ALERTS{alertname="HighFailureProbability",alertstate="firing",target="'$hero'"}'
shown='' fired='' arrived='' failed='' deadline=$((SECONDS + 900))
while [ "$SECONDS" -lt "$deadline" ]; do
  kill -0 "${pids[@]}" 2>/dev/null || die "one of the programs has ended; see its log"
  metrics=$(get /metrics)
  probability=$(awk -v prefix="failure_probability{target=\"$hero\"" 'index($0, prefix) == 1 { print $NF }' <<<"$metrics")
  if [ -z "$probability" ]; then
    state=$(sed -n "s/^forewarn_target_state{target=\"$hero\",state=\"\([a-z_]*\)\"} 1\$/\1/p" <<<"$metrics")
    line="$hero has no failure_probability: ${state:-unknown}"
  else
    line="$hero failure_probability $(printf '%.2f' "$probability")"
  fi
  [ "$line" = "$shown" ] || say "$line"
  shown=$line
  if [ -z "$fired" ] && [ -n "$(prom "$high")" ]; then
    fired=1
    say "ALERT  HighFailureProbability is firing for $hero"
  fi
  if [ -n "$fired" ] && [ -z "$arrived" ] && grep -qE "\"alertname\":\"HighFailureProbability\"[^}]*\"target\":\"$hero\"" <<<"$(get /api/v1/alerts)"; then
    arrived=1
    say "WEBHOOK  Alertmanager has delivered the alert to forewarn, which stored it"
  fi
  if [ -z "$failed" ] && [ "$(prom "up{job=\"fleet\",instance=\"$hero\"}")" = 0 ]; then
    failed=1
    say "FAILURE  $hero is down (up == 0)"
  fi
  if [ -n "$failed" ]; then
    outcome=$(grep -oE "\{[^{}]*\"target\":\"$hero\"[^{}]*\}" <<<"$(get /api/v1/scoreboard)" | grep -E -m 1 '"outcome":"(right|missed)"' || true)
    [ -n "$outcome" ] && [ "$fired" = "$arrived" ] && break
  fi
  sleep 1
done
[ -n "$failed" ] || die "$hero did not fail within 15 minutes: a bug in the demo"
[ -n "${outcome:-}" ] || die "the scoreboard has not judged the failure of $hero"

verdict=$(sed -n 's/.*"outcome":"\([a-z]*\)".*/\1/p' <<<"$outcome")
lead=$(sed -n 's/.*"lead_seconds":\([0-9.]*\).*/\1/p' <<<"$outcome")
case $verdict in
  right) say "SCOREBOARD  the alarm was right, $(printf '%.0f' "${lead:-0}") s before the failure" ;;
  *) say "SCOREBOARD  forewarn missed this failure: no model foresees every one" ;;
esac
[ -n "$fired" ] || say "HighFailureProbability did not fire in time for $hero"
say "the story is told"
if [ "$stay" -eq 1 ]; then
  echo "Everything keeps running. Ctrl-C ends it."
  while kill -0 "${pids[@]}" 2>/dev/null; do sleep 1; done
  die "one of the programs has ended; see its log"
fi
