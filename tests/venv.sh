# Sourced by tests that need packages of Python's index, in venvs that are kept under target/.

# XGBoost without the code for GPUs: the same library, a twentieth in size.
interchange=(interchange xgboost-cpu==3.2.0 pyarrow==26.0.1 numpy==2.4.6)
# Drives Debian's Chromium, and looks for what keeps people out.
browser=(browser playwright==1.65.2 axe-playwright-python==0.1.8)

# venv NAME PACKAGE==VERSION...: sets $python to one that has them and $bin to where their programs are; fails where they
# cannot be installed, gives 2 where pip cannot reach its index at all.
venv() {
  local venv=target/$1-venv probe
  shift
  bin=$venv/bin python=$venv/bin/python
  [ "$(cat "$venv/packages" 2>/dev/null)" != "$*" ] || return 0
  # Debian has venv in a package of its own, which brings no program of that name.
  python3 -m venv --clear "$venv" >/dev/null || { need python3-venv=python3-venv && python3 -m venv --clear "$venv"; }
  "$bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "$@" && {
    echo "$*" >"$venv/packages"
    return 0
  }
  probe=$(mktemp -d)
  if "$bin/pip" download --quiet --disable-pip-version-check --no-deps --dest "$probe" six; then
    echo "FAIL  pip's index answers, but $* cannot be installed" >&2
    rm -rf "$probe"
    return 1
  fi
  rm -rf "$probe"
  return 2
}
