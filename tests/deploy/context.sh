#!/usr/bin/env bash
# tests/deploy/context.sh FOLDER: what .dockerignore lets into the build, as a folder; whether Cargo and the notices find all there.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "$1"
sed -n 's/^!//p' .dockerignore | xargs cp --parents -r -t "$1"
cd "$1"
cargo metadata --locked --offline --format-version 1 >/dev/null
python3 deploy/third_party.py .
# Whatever the sources include is there, but for what only tests read.
grep -rhoE 'include_(str|bytes)!\("[^"]+"\)' src --include=lib.rs --include=mod.rs --include=docs.rs --include=page.rs -H |
  sed -E 's/^([^:]+):.*"([^"]+)".*/\1 \2/' | grep -v 'docs/simulator.md' |
  while read -r source file; do [ -e "$(dirname "$source")/$file" ] || { echo "$source includes $file"; exit 1; }; done
