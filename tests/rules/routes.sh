#!/usr/bin/env bash
# The examples of deploy/alertmanager: who is told what, what the notifications say, and, in a running Alertmanager, which alert mutes which.
set -euo pipefail
cd "$(dirname "$0")/../.."
amtool() { command amtool --no-version-check "$@" 2> >(grep -v 'overrides the --alertmanager.url' >&2); }

amtool check-config deploy/alertmanager/*.yml

told() { # told RECEIVERS LABEL=VALUE...
  amtool config routes test --config.file=deploy/alertmanager/alertmanager.yml --verify.receivers="$1" "${@:2}" > /dev/null ||
    { echo "FAIL  ${*:2}: not $1"; exit 1; }
}
told forewarn,pager forewarn=true severity=critical alertname=HighFailureProbability target=web-1
told forewarn,pager forewarn=true severity=critical alertname=ForewarnManyTargetsAtRisk
told forewarn,channel forewarn=true severity=warning alertname=ElevatedFailureProbability target=web-1
told forewarn,channel forewarn=true severity=warning alertname=ForewarnDown
told forewarn,mail forewarn=true severity=info alertname=ForewarnModelOld
told forewarn,pager severity=critical alertname=InstanceDown
told forewarn,channel severity=warning alertname=DiskFull
told forewarn,channel alertname=Unlabelled
for severity in critical warning info; do
  amtool config routes test --config.file=deploy/alertmanager/receiver-forewarn.yml --verify.receivers=forewarn,on-call severity=$severity > /dev/null
done

dir=$(mktemp -d)
trap 'kill "$server" 2> /dev/null || true; wait 2> /dev/null; rm -rf "$dir"' EXIT
cat > "$dir/data.json" << 'JSON'
{"status": "firing", "commonLabels": {"severity": "critical"}, "commonAnnotations": {"summary": "web-1: 85% likely to fail within 30m"},
 "alerts": [{"status": "firing", "annotations": {"summary": "web-1: 85% likely to fail within 30m", "description": "Because of: error rate (odds x10.1).",
 "action": "Read the log.", "dashboard_url": "https://grafana.example/d/forewarn-target", "status_url": "https://forewarn.example/?target=web-1", "runbook_url": "https://runbook.example"}}]}
JSON
rendered() { amtool template render --template.glob=deploy/alertmanager/forewarn.tmpl --template.data="$dir/data.json" --template.text="{{ template \"$1\" . }}"; }
diff <(rendered forewarn.title) <(printf 'web-1: 85%% likely to fail within 30m')
diff <(rendered forewarn.text) - << 'TEXT'
Because of: error rate (odds x10.1).
First: Read the log.
Dashboard: https://grafana.example/d/forewarn-target
Status page: https://forewarn.example/?target=web-1
Runbook: https://runbook.example
TEXT

# A running Alertmanager, of which nobody is told: it ends before the first group has waited.
sed -e 's/group_wait: .*/group_wait: 5m/' -e '/http_config:/,+2d' deploy/alertmanager/alertmanager.yml > "$dir/alertmanager.yml"
cp deploy/alertmanager/forewarn.tmpl "$dir"
url=http://127.0.0.1:18193
prometheus-alertmanager --config.file="$dir/alertmanager.yml" --storage.path="$dir/data" --cluster.listen-address= \
  --web.listen-address="${url#http://}" > "$dir/log" 2>&1 &
server=$!
for _ in $(seq 100); do curl -sf -o /dev/null "$url/-/ready" && break; sleep 0.1; done
kill -0 "$server" || { tail -n 3 "$dir/log"; exit 1; }

add() { amtool --alertmanager.url="$url" alert add "$@"; }
muted() { # muted: the alerts that another one mutes, and whose target it is
  curl -sf "$url/api/v2/alerts" | jq -r '.[] | select(.status.inhibitedBy != []) | .labels | .alertname + " " + (.target // "")' | sort | tr '\n' ';'
}
expect() { # expect WHAT MUTED
  for _ in $(seq 50); do [ "$(muted)" = "$2" ] && { echo "ok    $1"; return; }; sleep 0.1; done
  echo "FAIL  $1: $(muted)"
  exit 1
}
for target in web-1 web-2; do
  add alertname=ElevatedFailureProbability forewarn=true severity=warning target=$target job=shop
done
expect "alone a warning is heard" ""
add alertname=HighFailureProbability forewarn=true severity=critical target=web-1 job=shop
expect "the page mutes the warning about its target" "ElevatedFailureProbability web-1;"
add alertname=InstanceDown severity=critical target=web-1 instance=web-1 job=node
expect "the outage mutes both about its target" "ElevatedFailureProbability web-1;HighFailureProbability web-1;"
add alertname=ForewarnManyTargetsAtRisk forewarn=true severity=critical
expect "many at once mute every single one" "ElevatedFailureProbability web-1;ElevatedFailureProbability web-2;HighFailureProbability web-1;"
