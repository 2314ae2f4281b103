#!/usr/bin/env bash
# One use case from history to warning, for real: simulated targets of that field, a Prometheus, training, the days that
# training has not seen, and a picture of one failure with the warning before it. The tutorials in docs/tutorials tell it.
#
#   deploy/tutorial.sh CASE [options]      CASE: shop, cloud, payments, hospital or factory
#     --targets N     targets (16, factory 20)
#     --days N        days of history (20, factory 45)
#     --held-out N    of these the last ones, which only the backtest sees (5, factory 15)
#     --seed N        seed of the targets (1)
#     --port N        Prometheus (9090)
#     --out DIR       what it leaves behind (target/tutorial/CASE)
#     --stay          keep Prometheus running at the end
#
# The history ends on the last Monday at midnight, so that the same sizes and seed give the same figures in any week.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. tests/venv.sh

case=${1:-}
case $case in
  shop | cloud | payments | hospital) targets=16 days=20 held_out=5 ;;
  factory) targets=20 days=45 held_out=15 ;;
  -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
  *) echo "name a use case: deploy/tutorial.sh shop|cloud|payments|hospital|factory" >&2; exit 2 ;;
esac
shift
seed=1 port=9090 out=target/tutorial/$case stay=0
while [ $# -gt 0 ]; do
  case $1 in
    --targets | --days | --held-out | --seed | --port | --out)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
      name=${1#--}
      printf -v "${name//-/_}" %s "$2"
      shift 2
      ;;
    --stay) stay=1; shift ;;
    *) echo "unknown option $1; see deploy/tutorial.sh --help" >&2; exit 2 ;;
  esac
done
for number in "$targets" "$days" "$held_out" "$seed" "$port"; do
  case $number in '' | *[!0-9]*) echo "\"$number\" is not a whole number; see deploy/tutorial.sh --help" >&2; exit 2 ;; esac
done
[ "$held_out" -lt "$days" ] || { echo "--held-out $held_out leaves nothing of --days $days to learn from" >&2; exit 2; }

need cargo=cargo curl=curl prometheus=prometheus promtool=prometheus python3=python3
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
  echo "port $port is taken; choose another one with --port" >&2
  exit 1
fi
cargo build --release --locked --quiet
forewarn=$PWD/target/release/forewarn

rm -rf "$out"
mkdir -p "$out"
work=$(mktemp -d "${TMPDIR:-/tmp}/forewarn-tutorial.XXXXXX")
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null; wait; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

run() { # run ARGUMENTS...: forewarn with the case's config, shown as one would type it
  printf '\n\033[1m$ forewarn %s\033[0m\n' "$*"
  "$forewarn" "$@" --config.file "$config"
}

end=$(date -u -d "@$((($(date +%s) - 345600) / 604800 * 604800 + 345600))" +%FT%H:%MZ)
split=$(date -u -d "$end - $held_out days" +%FT%H:%MZ)
start=$(date -u -d "$end - $days days" +%FT%H:%MZ)
# The backtest refuses what the model has learned from, and that includes the moment of the split.
unseen=$(date -u -d "$split + 1 hour" +%FT%H:%MZ)

"$forewarn" simulate history --scenario "$case" --targets "$targets" --days "$days" --seed "$seed" --end "$end" \
  --output "$work/history.om" --oracle "$work/oracle.om"
for file in history oracle; do
  promtool tsdb create-blocks-from openmetrics --max-block-duration=720h "$work/$file.om" "$work/data" >"$work/backfill.log" 2>&1 ||
    { tail "$work/backfill.log" >&2; exit 1; }
  rm "$work/$file.om"
done
echo 'scrape_configs: []' >"$work/prometheus.yml"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --storage.tsdb.retention.time=10y \
  --web.listen-address="127.0.0.1:$port" 2>"$work/prometheus.log" &
pid=$!
url=http://127.0.0.1:$port
for _ in $(seq 300); do
  curl -sf -o /dev/null "$url/-/ready" && break
  kill -0 "$pid" 2>/dev/null || { tail "$work/prometheus.log" >&2; exit 1; }
  sleep 0.2
done

export FOREWARN_PROMETHEUS_URL=$url
config=deploy/examples/$case/config.yaml
run check config
run check queries --range 8d
run train --start "$start" --end "$split" --origin simulated --out "$out/model"

# What only a simulator knows stands beside the model: the true probability as a score.
config=$out/config.yaml
{
  cat "deploy/examples/$case/config.yaml"
  printf '\ncompare:\n  oracle: fleet_oracle_probability\n'
} >"$config"
run backtest --start "$unseen" --end "$end" --model "$out/model" --report "$out/report.html"

venv picture pyarrow==26.0.1 || {
  [ $? -eq 2 ] || exit 1
  printf '\n!!!! SKIPPED: pip cannot reach its index, so that there is no picture !!!!\n\n' >&2
  exit 0
}
run dataset export --start "$unseen" --end "$end" --model "$out/model" --output "$work/scores.parquet" 2>/dev/null
"$python" deploy/tutorial.py "$url" "$out/model/manifest.json" "$config" "$work/scores.parquet" "$out/warning.svg"
echo "
$out/warning.svg, $out/report.html and $out/model are kept"
if [ "$stay" -eq 1 ]; then
  echo "Prometheus keeps running on $url. Ctrl-C ends it."
  wait "$pid"
fi
