# Sourced by deploy/demo.sh and the scripts in tests: makes sure that programs are there.

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

# unpack SUITE DIR PACKAGE...: the programs of another Debian suite, under DIR/usr/bin; installs nothing. Asks the
# mirror that apt is set up with, and fails where that does not have the suite.
unpack() {
  local suite=$1 dir=$2 work mirror options
  shift 2
  mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -nE 's,^URIs: *(\S*/debian)/?\s*$,\1,p; s,^deb(\s+\[[^]]*\])?\s+(\S*/debian)/?\s.*,\2,p' | head -n 1)
  [ -n "$mirror" ] || return 1
  work=$(mktemp -d)
  mkdir -p "$work"/{state/lists/partial,cache/archives/partial,debs,preferences} "$dir"
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "$mirror" "$suite" >"$work/suite.sources"
  options=(-qq -o Dir::Etc::sourcelist="$work/suite.sources" -o Dir::Etc::sourceparts=/nonexistent
    -o Dir::Etc::preferencesparts="$work/preferences" -o Dir::State="$work/state" -o Dir::State::status=/dev/null
    -o Dir::Cache="$work/cache" -o Acquire::Languages=none -o APT::Sandbox::User=root)
  local status=0
  { apt-get "${options[@]}" update && (cd "$work/debs" && apt-get "${options[@]}" download "$@") &&
    for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$dir" || exit 1; done; } >/dev/null 2>&1 || status=1
  rm -rf "$work"
  return "$status"
}
