# Sourced by the comparisons: a Python with the peers, under target/; sets $python.
. tests/venv.sh
venv peers "${interchange[@]:1}" scikit-learn==1.9.1 || {
  echo "the peers cannot be installed: is pip's index within reach?" >&2
  exit 1
}
python=$PWD/$python
