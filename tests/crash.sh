#!/usr/bin/env bash
# Kills forewarn with SIGKILL at random moments and looks at what is left: see crash.py, which has the options.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -n "${FOREWARN_BIN:-}" ] || cargo build --release --locked --quiet
export FOREWARN_BIN=${FOREWARN_BIN:-target/release/forewarn}
exec python3 tests/crash.py "$@"
