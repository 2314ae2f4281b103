#!/usr/bin/env bash
# What one fit of each member costs in CPU, beside Python's XGBoost and scikit-learn's forest and logistic regression on the same
# matrix with the same hyperparameters (200 trees of depth 6, 200 of depth 15, at least 20 rows a leaf). scikit-learn's forest
# is fitted with fewer trees and its time scaled.
#
#   benches/fit.sh [--rows N] [--trees N]
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
rows=1000000 trees=10
while [ $# -gt 0 ]; do
  case $1 in
    --rows | --trees)
      [ $# -ge 2 ] || { echo "$1 needs a value" >&2; exit 2; }
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
  esac
done
need cargo=cargo python3=python3
. benches/python.sh
cargo build --release --locked --quiet --example fit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
target/release/examples/fit "$rows" "$work" >"$work/own.json"
"$python" benches/fit.py "$work" --trees "$trees"
