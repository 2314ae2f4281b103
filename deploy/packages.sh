# Sourced by deploy/demo.sh and tests/run.sh: makes sure that programs are there.

# need PROGRAM=PACKAGE...: installs the Debian packages of the programs that are missing.
# Debian's packages of servers start them; a policy that forbids it stands in for the time of the installation.
need() {
  local missing=() pair
  for pair in "$@"; do
    command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || {
    echo "missing: ${missing[*]} — install them (this is no Debian, so it was not tried)" >&2
    return 1
  }
  local root=() policy=/usr/sbin/policy-rc.d made=0
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "missing: ${missing[*]} — install them as root: apt-get install ${missing[*]}" >&2
      return 1
    }
    root=(sudo)
  fi
  echo "installing Debian packages: ${missing[*]}" >&2
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
    "${root[@]}" chmod +x "$policy"
    made=1
  fi
  local status=0
  { "${root[@]}" apt-get update -qq &&
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >&2 || status=1
  [ "$made" -eq 1 ] && "${root[@]}" rm -f "$policy"
  return "$status"
}
