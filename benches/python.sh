# Sourced by the comparisons: a Python with the peers, under target/; sets $python.
python=$PWD/target/peers-venv/bin/python
if ! "$python" -c 'import numpy, pyarrow, sklearn, xgboost' 2>/dev/null; then
  python3 -m venv "$PWD/target/peers-venv" >/dev/null || { need python3-venv=python3-venv && python3 -m venv --clear "$PWD/target/peers-venv"; }
  "$python" -m pip install --quiet --disable-pip-version-check xgboost-cpu==3.2.0 scikit-learn==1.9.1 pyarrow==26.0.1 numpy==2.4.6 || {
    echo "the peers cannot be installed: is pip's index within reach?" >&2
    exit 1
  }
fi
