#!/usr/bin/env bash
# Every check of the project, from nothing but Rust: formatting, lints, unit and integration
# tests, rules and configs with the real tools, and the whole chain on real servers.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

step "programs the tests need"
need cargo=cargo curl=curl jq=jq openssl=openssl perl=perl python3=python3 prometheus=prometheus promtool=prometheus \
  victoria-metrics=victoria-metrics prometheus-alertmanager=prometheus-alertmanager amtool=prometheus-alertmanager

step "formatting"
cargo fmt --check
step "lints"
cargo clippy --locked --all-targets --quiet -- -D warnings
step "unit and integration tests"
cargo test --locked --quiet
step "what is depended on"
tests/supply_chain.sh
step "alerting rules and configs"
tests/rules.sh
step "what is deployed, with the validators of each"
tests/deploy.sh
step "the five use cases' configs against their series"
tests/examples.sh
step "the command line"
tests/cli.sh
step "TLS and authentication with real clients"
tests/web.sh
step "the API, its pages and its clients by its own description"
tests/api.sh
step "models and data to XGBoost and back"
tests/interchange.sh
step "the servers to ask, and what differs between them"
tests/upstream.sh
step "a first config for real exporters"
tests/presets.sh
step "the whole chain on real servers"
tests/e2e.sh
step "the status page in a browser"
tests/page.sh
step "webhooks of real Alertmanagers"
tests/alertmanager.sh
step "killed at random moments"
tests/crash.sh
step "all checks passed"
