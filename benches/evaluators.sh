#!/usr/bin/env bash
# The shipped model's trees, scored by forewarn and by XGBoost, ONNX Runtime and treelite: the same rows, one thread, one run.
#
#   benches/evaluators.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
need cargo=cargo python3=python3
. benches/python.sh
"$python" -c "import onnxruntime, onnxmltools, treelite" 2>/dev/null || "$python" -m pip install --quiet --disable-pip-version-check \
  onnxruntime==1.32.0 onnxmltools==1.16.0 onnx==1.23.2 treelite==4.8.1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp models/default/full/{xgboost,random_forest}.json "$work"
FOREWARN_ROWS=$work/rows cargo bench --locked --quiet --bench ensemble >/dev/null
"$python" benches/evaluators.py "$work" target/criterion
