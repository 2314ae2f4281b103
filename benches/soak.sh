#!/usr/bin/env bash
# `forewarn serve` with very many targets for a long time: an upstream of canned answers (benches/upstream.rs), the shipped
# model, a scrape of /metrics every 15 s and some predictions. Prints memory, file descriptors and cycles as they go on, and
# fails when cycles are missed after the first (the backfill), a gauge is stale, or memory at the end is 5 % above what it was in the middle third.
#
#   benches/soak.sh [--targets N] [--minutes N]
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
need cargo=cargo python3=python3
cargo build --release --locked --quiet --bin forewarn --example upstream
exec python3 benches/soak.py "$@"
