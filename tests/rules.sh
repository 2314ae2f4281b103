#!/usr/bin/env bash
# Checks rules, their unit tests, the dashboards, the presets' queries and the deploy snippets around them.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
need cargo=cargo promtool=prometheus prometheus-alertmanager=prometheus-alertmanager python3=python3 curl=curl jq=jq

promtool check rules --lint=all --lint-fatal rules/*.rules.yml
promtool test rules tests/rules/*.test.yml
promtool check config --lint=all --lint-fatal deploy/prometheus/scrape-forewarn.yml

# The vmalert variant: the same groups but for the pages, and the same behaviour and texts in the same tests.
diff <(sed -n '/^groups:/,/# Pages about targets/p' rules/forewarn.rules.yml | sed '$d') \
     <(sed -n '/^groups:/,/# Pages about targets/p' rules/forewarn-vmalert.rules.yml | sed '$d')
variant=$(mktemp -d)
trap 'rm -rf "$variant"' EXIT
for file in pages text; do
  sed "s|\.\./\.\./rules/forewarn\.rules|$PWD/rules/forewarn-vmalert.rules|" "tests/rules/$file.test.yml" > "$variant/$file.test.yml"
done
promtool test rules "$variant"/*.test.yml
if command -v vmalert > /dev/null; then
  vmalert -dryRun -rule=rules/forewarn-vmalert.rules.yml -rule=rules/forewarn-links.rules.yml -loggerLevel=ERROR
fi

tests/rules/routes.sh

cargo build --release --locked --quiet
# Each query of the presets of `forewarn init`, as the rule of an own name.
target/release/forewarn init --list --output json | jq '{groups: [{name: "presets", rules: [
  .[] | .preset as $preset | [.found_by, (.signals[].queries[]), (.failures[] | .queries[], .exist[])] | to_entries[] |
  {record: "preset:\($preset)_\(.key)", expr: .value}]}]}' > "$variant/presets.json"
promtool check rules "$variant/presets.json"

python3 tests/rules/lint.py
echo "rules: ok"
