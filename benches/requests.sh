#!/usr/bin/env bash
# What a request costs, beside a bare server that parses the same JSON and answers a constant (benches/bare.rs): requests/s,
# p99 and server CPU of /predict and /predict/batch; then start, idle memory, and how /metrics and the probes do at saturation.
# Ratios are of one run, figures medians of the rounds. Tables of docs/performance.md come from here.
#
#   benches/requests.sh [--rounds N] [--seconds N] [--model DIR] [--peer NAME=URL=PID]... [--only PART]...
#
# --peer measures a server that already runs and answers the same paths; its PID gives its CPU.
# PART: predict, batch, start, saturation.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
need cargo=cargo wrk=wrk python3=python3
cargo build --release --locked --quiet --bin forewarn --example bare
exec python3 benches/requests.py "$@"
