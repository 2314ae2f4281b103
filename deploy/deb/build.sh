#!/usr/bin/env bash
# Makes the Debian package of a binary that is built already, with debhelper: deploy/deb/build.sh [FOLDER]
#
# BINARY (target/release/forewarn) names the binary: a static one installs on every Debian, one for glibc on the release
# that it was built on and newer ones.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/packages.sh
need dh=debhelper python3=python3

out=${1:-target/debian} binary=${BINARY:-target/release/forewarn}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage=$work/forewarn
mkdir "$stage"
cp -r README.md CHANGELOG.md docs rules dashboards models deploy "$stage"
cp -r deploy/deb/debian "$stage/debian"
cp deploy/systemd/forewarn.service "$stage/debian/forewarn.service"
cp "$binary" "$stage/forewarn"
mkdir "$stage/man" "$stage/completions"
"$stage/forewarn" man "$stage/man"
"$stage/forewarn" completions bash >"$stage/completions/forewarn"
"$stage/forewarn" completions zsh >"$stage/completions/_forewarn"
"$stage/forewarn" completions fish >"$stage/completions/forewarn.fish"
# The same documentation of all keys, with the package's folders.
sed -E 's,^(  path: )(models|data)/ +#,\1/var/lib/forewarn/\2/ #,' config.yaml >"$stage/config.yaml"
[ "$(grep -c '^  path: /var/lib/forewarn/' "$stage/config.yaml")" = 2 ]
python3 deploy/third_party.py "$stage"
# The licence in the form that Debian reads.
{
  sed -n 's/^Copyright (c) /Copyright: /p' LICENSE
  echo 'License: Expat'
  sed '1,/^Copyright/d' LICENSE | sed '1{/^$/d}; s/^$/./; s/^/ /'
} >>"$stage/debian/copyright"
version=$(sed -n '/^version = "/{s///;s/"//p;q}' Cargo.toml)
printf 'forewarn (%s-1) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- The forewarn authors <forewarn@users.noreply.github.com>  %s\n' \
  "$version" "$(LC_ALL=C TZ=UTC date -R -r CHANGELOG.md)" >"$stage/debian/changelog"
(cd "$stage" && dpkg-buildpackage --build=binary --no-sign --no-pre-clean --no-check-builddeps) >"$work/log" 2>&1 || {
  tail -n 30 "$work/log" >&2
  exit 1
}
cp "$work"/*.deb "$out"
ls "$out/forewarn_$version"-1_*.deb
