#!/usr/bin/env bash
# What a cycle costs for 1,000 to 100,000 targets against an upstream of canned answers (benches/upstream.rs), with the state
# on: CPU and time of a cycle and of a scrape of /metrics, memory, the start with its backfill, and the p99 of /predict beside
# them. Cycles follow one another without the wait between them (benches/cycle.rs). The table of docs/performance.md comes
# from here.
#
#   benches/cycle.sh [--targets N...] [--cycles N] [--rounds N] [--seconds N] [--model DIR]
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
need cargo=cargo wrk=wrk python3=python3
cargo build --release --locked --quiet --example upstream --example cycle
exec python3 benches/cycle.py "$@"
