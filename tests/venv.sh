# Sourced by tests that compare with Python: sets $python to one with XGBoost and pyarrow, in a venv that is kept.

# venv WORK: fails where the packages cannot be installed, gives 2 where pip cannot reach its index at all.
venv() {
  local work=$1 venv=target/interchange-venv
  # xgboost-cpu is the same library without the code for GPUs, a twentieth in size.
  local packages=(xgboost-cpu==3.2.0 pyarrow==26.0.1 numpy==2.4.6)
  python=$venv/bin/python
  "$python" -c 'import xgboost, pyarrow' 2>/dev/null && return
  # Debian has venv in a package of its own, which brings no program of that name.
  python3 -m venv "$venv" >/dev/null || { need python3-venv=python3-venv && python3 -m venv --clear "$venv"; }
  "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" && return
  if "$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" numpy; then
    echo "FAIL  pip's index answers, but ${packages[*]} cannot be installed" >&2
    return 1
  fi
  return 2
}
