#!/usr/bin/env bash
# The demo at one simulated minute a second, with real Prometheus and Alertmanager, and what must be true of it.
set -euo pipefail
set -m # the demo gets a process group of its own, so that it can be interrupted as by Ctrl-C
cd "$(dirname "$0")/.."

port=18000 prometheus_port=18090 alertmanager_port=18093 fleet_port=18109
forewarn=http://127.0.0.1:$port
prometheus=http://127.0.0.1:$prometheus_port
targets=20
log=$(mktemp)
failures=0
check() { # check WHAT COMMAND...
  local what=$1
  shift
  local said
  if said=$("$@" 2>&1); then echo "ok    $what"; else
    echo "FAIL  $what"
    grep -v '^ok' <<<"$said" || true
    failures=$((failures + 1))
  fi
}
at_least() { awk -v have="${1:-0}" -v want="$2" 'BEGIN { exit !(have + 0 >= want + 0) }'; }
metric() { awk -v prefix="$1" 'index($0, prefix) == 1 && !found++ { print $NF }' <(curl -sf "$forewarn/metrics"); }
query() { curl -sf "$prometheus/api/v1/query" --data-urlencode "query=$1" | jq -r '.data.result[0].value[1] // empty'; }
post() { curl -s -o /dev/null -w '%{http_code}' -H 'Content-Type: application/json' -d "$2" "$forewarn$1"; }

deploy/demo.sh --fast --targets "$targets" --port "$port" --prometheus-port "$prometheus_port" \
  --alertmanager-port "$alertmanager_port" --fleet-port "$fleet_port" >"$log" 2>&1 &
demo=$!
finish() {
  kill -INT -- "-$demo" 2>/dev/null || true
  wait "$demo" 2>/dev/null || true
  rm -f "$log"
}
trap finish EXIT

for _ in $(seq 900); do
  grep -q "the story is told" "$log" && break
  kill -0 "$demo" 2>/dev/null || break
  sleep 1
done
cat "$log"
grep -q "the story is told" "$log" || { echo "FAIL  the demo did not tell its story"; exit 1; }

check "the demo saw its target fail and the scoreboard judge it" grep -qE "SCOREBOARD  (the alarm was right|forewarn missed)" "$log"

# Of whichever targets fail next: the rule pages, Alertmanager delivers, the scoreboard counts. No target is singled out.
fired='max_over_time(ALERTS{alertname="HighFailureProbability",alertstate="firing"}[30m])'
delivered() {
  curl -sf "$forewarn/api/v1/alerts" |
    jq -e '[.alerts[] | select(.own and .labels.alertname == "HighFailureProbability" and .target)] | length > 0' >/dev/null
}
come_true() {
  [ -n "$(query "count($fired)")" ] && delivered && at_least "$(metric 'forewarn_outcomes_total{outcome="right"}')" 1
}
for _ in $(seq 720); do
  come_true && break
  sleep 1
done
check "HighFailureProbability has fired" test -n "$(query "count($fired)")"
echo "      for: $(curl -sf "$prometheus/api/v1/query" --data-urlencode "query=$fired" | jq -r '[.data.result[].metric.target] | unique | join(", ")')"
check "Alertmanager delivered it, and it is stored with its target" delivered
check "the fired rule has its own for, scaled with the rest" \
  test "$(curl -sf "$prometheus/api/v1/rules" | jq '[.data.groups[].rules[] | select(.name == "HighFailureProbability") | .duration] | max')" = 5

# A target is scored, failing, recovering or says why not: nobody is left out.
states=$(query 'count(forewarn_target_state == 1)')
check "every target has a state (have ${states:-none})" test "${states:-0}" = "$targets"
check "every target had a gauge within the last minutes" \
  test "$(query 'count(max by (target) (max_over_time(failure_probability[5m])))')" = "$targets"
check "gauges carry the extra label" at_least "$(query 'count(failure_probability{service!=""})')" 1
check "cycles run" at_least "$(metric forewarn_cycles_total)" 30
check "Prometheus is up for forewarn" test "$(metric forewarn_prometheus_up)" = 1
check "an alarm was right" at_least "$(metric 'forewarn_outcomes_total{outcome="right"}')" 1
check "its lead time is counted" at_least "$(metric forewarn_lead_time_seconds_count)" 1
check "own alerts came by webhook and are marked" at_least "$(metric 'forewarn_webhook_alerts_total{result="own"}')" 1
check "the fleet's own alert came by webhook" at_least "$(metric 'forewarn_webhook_alerts_total{result="stored"}')" 1
check "incidents are counted" at_least "$(metric 'forewarn_incidents_total{source="query"}')" 1
check "the model is of history" grep -q 'origin="history"' <(curl -sf "$forewarn/metrics")
check "/metrics is valid" promtool check metrics < <(curl -sf "$forewarn/metrics")

check "every dashboard query returns data" tests/live_dashboards.py --prometheus "$prometheus" --minutes 2
body='{"cpu_usage":91,"memory_usage":97,"disk_usage":60,"network_latency_ms":40,"error_count":30,"response_time_ms":2500,"active_connections":40}'
check "/predict answers" test "$(post /predict "$body")" = 200
check "/predict names the model" jq -e '.model_origin == "history" and .horizon_seconds == 30' \
  <(curl -sf -H 'Content-Type: application/json' -d "$body" "$forewarn/predict")
check "/predict/batch answers" test "$(post /predict/batch "[$body,$body]")" = 200
check "/predict refuses a value out of range" test "$(post /predict '{"cpu_usage":101}')" = 422
check "/predict refuses what is no JSON" test "$(post /predict '{')" = 400
check "the page, the docs and the spec answer" \
  curl -sf -o /dev/null "$forewarn/" -o /dev/null "$forewarn/docs" -o /dev/null "$forewarn/redoc" -o /dev/null "$forewarn/openapi.json"

# The same time queried again, by the commands of somebody who looks at it afterwards.
served=$(pgrep -g "$demo" -f 'forewarn serve')
backtest() {
  env $(tr '\0' '\n' <"/proc/$served/environ" | grep -E '^(FOREWARN_PROMETHEUS_URL|DATA_PATH|MODEL_PATH)=') target/release/forewarn backtest \
    --config.file "$(tr '\0' '\n' <"/proc/$served/cmdline" | tail -n 1)" --start 10m --end now --allow-overlap --output json 2>/dev/null
}
live=$(backtest | jq -c .live)
echo "      live and queried again: $live"
check "the alarms raised live are compared with the same time queried again" jq -e '.live >= 1 and .same >= 1' <<<"$live"

kill -INT -- "-$demo"
wait "$demo" || true
check "Ctrl-C ended everything" test -z "$(for p in $port $prometheus_port $alertmanager_port $fleet_port; do (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null && echo "$p"; done)"
[ "$failures" -eq 0 ] || { echo "$failures checks failed"; exit 1; }
