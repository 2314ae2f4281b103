#!/usr/bin/env bash
# Searches for inputs that break a property of src/lib.rs: fuzz/run.sh [SECONDS [TARGET...]], one target after the other.
# Needs a nightly toolchain and cargo-fuzz (cargo install --locked cargo-fuzz).
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
all=(config web query rules webhook action predict batch model xgboost rows times)
targets=("${@:-${all[@]}}")

# The recorded inputs that a search starts from, beside the target's own corpus.
seeds() {
  case $1 in
    config) echo tests/fixtures/config deploy/demo ;;
    query | rules) echo tests/fixtures/prometheus/{prom2.42,prom3.5,vm1.79,vm1.145} ;;
    webhook) echo tests/fixtures/alertmanager/{0.25,0.33} ;;
    xgboost) echo tests/fixtures/xgboost ;;
  esac
}

# The same versions of all crates as in the product.
cp Cargo.lock fuzz/Cargo.lock
cargo +nightly fuzz build
binaries=fuzz/target/x86_64-unknown-linux-gnu/release

for target in "${targets[@]}"; do
  mkdir -p "fuzz/work/$target" "fuzz/artifacts/$target" "fuzz/corpus/$target"
  read -ra seeds <<<"$(seeds "$target")"
  "$binaries/$target" "fuzz/work/$target" "fuzz/corpus/$target" "${seeds[@]}" \
    -artifact_prefix="fuzz/artifacts/$target/" -max_total_time="$seconds" \
    -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=256 -max_len=65536 -print_final_stats=1
done
