#!/usr/bin/env bash
# What real Alertmanagers deliver, and what becomes of it: see alertmanager.py. Debian's own, and the newest that its mirror has.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
need python3=python3 prometheus-alertmanager=prometheus-alertmanager
[ -n "${FOREWARN_BIN:-}" ] || cargo build --release --locked --quiet
export FOREWARN_BIN=${FOREWARN_BIN:-target/release/forewarn}

python3 tests/alertmanager.py "$(command -v prometheus-alertmanager)"
newer=$(mktemp -d)
trap 'rm -rf "$newer"' EXIT
if unpack forky "$newer" prometheus-alertmanager; then
  python3 tests/alertmanager.py "$newer/usr/bin/prometheus-alertmanager"
else
  echo "SKIPPED: a newer Alertmanager: apt's mirror does not give it, or this is no Debian"
fi
