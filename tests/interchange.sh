#!/usr/bin/env bash
# Models and data to XGBoost and back: forewarn's trees score alike in Python, and a model that Python trains on the
# exported dataset is imported and served. Needs pip's index for XGBoost; without it this is skipped, loudly.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. tests/venv.sh

prometheus_port=${1:-18190} port=${2:-18100}
need cargo=cargo curl=curl jq=jq python3=python3 prometheus=prometheus promtool=prometheus
cargo build --release --locked --quiet
forewarn=$PWD/target/release/forewarn

work=$(mktemp -d)
pids=()
finish() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap finish EXIT

venv "${interchange[@]}" || {
  [ $? -eq 2 ] || exit 1
  printf '\n!!!! SKIPPED: pip cannot reach its index, so that nothing was compared with XGBoost !!!!\n\n' >&2
  exit 0
}

for number in "$prometheus_port" "$port"; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$number") 2>/dev/null; then
    echo "port $number is taken; give free ones: tests/interchange.sh PROMETHEUS_PORT PORT" >&2
    exit 1
  fi
done
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
refuses() { # refuses WORDS COMMAND...: it fails, and says so in these words
  local words=$1
  shift
  ! "$@" >"$work/refused.log" 2>&1 && grep -qF -- "$words" "$work/refused.log"
}
ready() { # ready NAME URL
  for _ in $(seq 300); do
    curl -sf -o /dev/null --max-time 2 "$2" && return
    sleep 0.2
  done
  tail -n 20 "$work/$1.log" >&2
  exit 1
}

export FOREWARN_PROMETHEUS_URL=http://127.0.0.1:$prometheus_port MODEL_PATH=$work/models DATA_PATH=$work/state
export API_HOST=127.0.0.1 API_PORT=$port
# Half of the targets lack a signal, so that missing values are compared and learned from too.
sed 's/fleet_network_latency_seconds{job="fleet"/&,instance=~"(payments|hospital).*"/' deploy/demo/config.yaml >"$work/config.yaml"
config=(--config.file "$work/config.yaml")
# Ends now, so that serve finds live targets at its end.
"$forewarn" simulate history --targets 20 --days 10 --seed 11 --output "$work/history.om"
promtool tsdb create-blocks-from openmetrics --max-block-duration=720h "$work/history.om" "$work/data" >/dev/null
rm "$work/history.om"
echo 'scrape_configs: []' >"$work/prometheus.yml"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --storage.tsdb.retention.time=10y \
  --web.listen-address="127.0.0.1:$prometheus_port" >"$work/prometheus.log" 2>&1 &
pids+=($!)
ready prometheus "$FOREWARN_PROMETHEUS_URL/-/ready"
mkdir "$work/models"
cp -r models/default "$work/models/default"

# The same range for the export and the import.
range=(--start "$(date -u -d '10 days ago' +%FT%H:%M:00Z)" --end "$(date -u +%FT%H:%M:00Z)")
data=$work/history.parquet
"$forewarn" dataset export "${config[@]}" "${range[@]}" --model "$work/models/default" --output "$data"
check "the dataset is as documented" "$python" tests/interchange.py describe "$data"
for member in xgboost random_forest; do
  "$forewarn" model export "${config[@]}" --member "$member" --output "$work/$member.json"
done
"$python" tests/interchange.py compare "$data" "$work/xgboost.json" "$work/random_forest.json"
echo "ok    XGBoost scores forewarn's trees as forewarn does"
check "a file of another kind is not replaced" refuses "is something else" \
  "$forewarn" dataset export "${config[@]}" "${range[@]}" --output README.md

"$python" tests/interchange.py train "$data" "$work/trained.json"
"$python" tests/interchange.py train "$data" "$work/foreign.json" --rename load_1m
served() { "$forewarn" model list "${config[@]}" --output json | jq -r '.[] | select(.current).name'; }
import() { "$forewarn" model import "${config[@]}" "${range[@]}" --xgboost "$1" --output json; }
check "a model of other features is refused by name" refuses 'the feature `load_1m`' import "$work/foreign.json"
check "the served model is untouched" test "$(served)" = default

import "$work/trained.json" >"$work/report.json"
check "the import is judged like a trained model" jq -e \
  '.ensemble.roc_auc > 0.75 and (.members | keys == ["xgboost"]) and .baselines.random.roc_auc < 0.6 and .at_threshold.incidents > 0' "$work/report.json"
jq -r '"      ROC AUC \(.ensemble.roc_auc), AP \(.ensemble.average_precision), ECE \(.ensemble.ece)"' "$work/report.json"
model=$(jq -r .model_id "$work/report.json")
check "the imported model is the served one" test "$(served)" = "$model"
check "its manifest says where it comes from" jq -e '.origin == "imported"' \
  <("$forewarn" model inspect "${config[@]}" --output json)
check "it verifies" "$forewarn" check model "${config[@]}"
sed 's/^horizon:/model: {serve: random_forest}\n&/' "$work/config.yaml" >"$work/forest.yaml"
check "a member that it lacks is not served" refuses "has no random_forest" \
  "$forewarn" check model --config.file "$work/forest.yaml"

row='{"cpu_usage":91,"memory_usage":97,"disk_usage":60,"network_latency_ms":40,"error_count":30,"response_time_ms":2500,"active_connections":40}'
body=$(jq -c '. + {history: [range(60) as $i | $row]}' --argjson row "$row" <<<"$row")
answers='.model_id == $id and .model_origin == "imported" and .history == "request" and (.models | keys == ["xgboost"]) and .failure_probability == .models.xgboost'
check "predict answers with it" jq -e --arg id "$model" "$answers" <("$forewarn" predict "${config[@]}" <<<"$body")
"$forewarn" serve "${config[@]}" >"$work/serve.log" 2>&1 &
pids+=($!)
ready serve "http://127.0.0.1:$port/-/ready"
check "the API answers with it" jq -e --arg id "$model" "$answers" \
  <(curl -sf -H 'Content-Type: application/json' -d "$body" "http://127.0.0.1:$port/predict")
check "a body without history is answered by all members" jq -e '.history == "none" and (.models | length == 3)' \
  <(curl -sf -H 'Content-Type: application/json' -d "$row" "http://127.0.0.1:$port/predict")
check "the targets are scored with it" grep -q '^failure_probability{' <(curl -sf "http://127.0.0.1:$port/metrics")
check "the metrics name it" grep -q 'origin="imported"' <(curl -sf "http://127.0.0.1:$port/metrics")
check "rolling back returns to the model before" "$forewarn" model rollback "${config[@]}"
check "which is served again" test "$(served)" = default
[ "$failures" -eq 0 ] || { echo "$failures checks failed"; exit 1; }
