#!/usr/bin/env bash
# The command line as people and scripts meet it: examples of the help that run, completions in a real bash, man pages
# under mandoc, colours and tables on a real terminal, JSON, exit codes, errors that name the next step. FOREWARN names the binary.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh

need bash=bash jq=jq mandoc=mandoc script=bsdutils
[ -n "${FOREWARN:-}" ] || cargo build --release --locked --quiet
forewarn=$(realpath "${FOREWARN:-target/release/forewarn}")
config=$PWD/config.yaml models=$PWD/models rules=$PWD/rules
work=$(mktemp -d)
taken=
finish() {
  [ -z "$taken" ] || kill "$taken" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
failures=0
check() { # check WHAT COMMAND...
  local what=$1
  shift
  if "$@" >"$work/out" 2>"$work/err"; then echo "ok    $what"; else
    echo "FAIL  $what"
    head -n 5 "$work/out" "$work/err"
    failures=$((failures + 1))
  fi
}
mkdir "$work/bin" "$work/place"
ln -s "$forewarn" "$work/bin/forewarn"
export PATH=$work/bin:$PATH
cd "$work/place"
# Nobody listens at that address.
sed 's|http://127.0.0.1:9090|http://127.0.0.1:1|' "$config" >config.yaml
cp -r "$models" models

exits() { # exits CODE PART COMMAND...: with that code, and stderr holds the part
  local code=$1 part=$2 status=0
  shift 2
  "$@" >/dev/null 2>"$work/said" || status=$?
  cat "$work/said" >&2
  [ "$status" -eq "$code" ] && grep -qF -- "$part" "$work/said"
}

# Help.
check "forewarn alone shows the first steps" exits 2 "First steps:" forewarn
for page in "$forewarn" "$forewarn model" "$forewarn check"; do
  # shellcheck disable=SC2086
  names=$($page --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\)  .*/\1/p' | grep -v '^help$')
  for name in $names; do
    # shellcheck disable=SC2086
    check "${page##*/} $name --help has examples" grep -q '^Examples:' <($page "$name" --help)
  done
done
echo '[{"cpu_usage": 40}]' >rows.json
printf 'host,cpu_usage\na,97\n' >rows.csv
run=0
while read -r line; do
  case $line in
    *models/winter* | *20260112t0000* | *promtool* | *rollback* | */etc/* | */usr/* | *'~/'*) continue ;;
    "forewarn check config"* | "forewarn check model"* | "forewarn model "[lie]* | "echo "* | "forewarn predict"* | "forewarn simulate history"*) ;;
    *) continue ;;
  esac
  case $line in *"forewarn model import"*) continue ;; esac
  run=$((run + 1))
  check "example: $line" bash -c "set -o pipefail; ${line%%   *}"
done < <(for page in "check config" "check model" model "model list" "model inspect" "model export" predict "simulate history"; do
  # shellcheck disable=SC2086
  forewarn help $page | sed -n '/^Examples:/,/^$/s/^  //p'
done | sort -u)
check "some examples were run" test "$run" -ge 10

# Completions.
complete_in_bash() { # complete_in_bash EXPECTED WORD...: what bash offers for the last word
  local expected=$1
  shift
  bash --norc -c '
    source <(forewarn completions bash)
    COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
    function=$(complete -p forewarn | sed "s/.*-F \([^ ]*\).*/\1/")
    "$function" forewarn "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf "%s\n" "${COMPREPLY[@]}" | grep -qx -- "$1"' bash "$expected" "$@"
}
check "bash completes a command" complete_in_bash backtest forewarn back
check "bash completes a command of a command" complete_in_bash promote forewarn model prom
check "bash completes a flag" complete_in_bash --promote forewarn train --prom
check "bash completes a value" complete_in_bash if-better forewarn train --promote if
for shell in bash zsh fish elvish powershell; do
  check "completions $shell" grep -q forewarn <(forewarn completions "$shell")
done

# Man pages.
mkdir man
forewarn man man
for page in man/*.1; do
  # A page is of a version, not of a day.
  check "$(basename "$page") is clean" bash -c '! mandoc -Tlint -Wwarning "$1" | grep -v "missing date"' bash "$page"
  check "$(basename "$page") has examples" grep -qE '^\.SH "?(EXAMPLES|FIRST STEPS)"?' "$page"
done
check "a page per command" test "$(ls man | wc -l)" -ge 20
check "a page reads well" grep -q "forewarn train --start 90d" <(mandoc -Tutf8 man/forewarn-train.1 | col -b)

# Colours and width.
escape=$'\033'
on_terminal() { script -qec "$1" /dev/null </dev/null; }
check "colours on a terminal" grep -q "$escape" <(on_terminal "forewarn check config")
check "none with NO_COLOR" bash -c "! NO_COLOR=1 script -qec 'forewarn check config' /dev/null </dev/null | grep -q $'$escape'"
check "none into a pipe" bash -c "! forewarn check config | grep -q $'$escape'"
check "some with CLICOLOR_FORCE" grep -q "$escape" <(CLICOLOR_FORCE=1 forewarn check config)
widest() { awk '{ if (length > most) most = length } END { print most + 0 }'; }
cp -r models/default models/a-name-that-is-longer-than-most-terminals-are-wide-and-goes-on-and-on
narrow=$(on_terminal "stty cols 70; NO_COLOR=1 forewarn model list" | tr -d '\r' | grep -v '^\*' | widest)
check "a table fits 70 places (it takes $narrow)" test "$narrow" -le 70
check "nothing is cut in a pipe" grep -q goes-on-and-on <(forewarn model list)
rm -r models/a-name*

# JSON.
json() { # json FILTER COMMAND...: valid, and the filter holds; whatever the exit code
  local filter=$1
  shift
  "$@" >"$work/json" || true
  jq -e "$filter" "$work/json"
}
check "check config" json '.ok and .problems == []' forewarn check config --output json
echo 'horizn: 30m' >wrong.yaml
check "check config with problems" json '(.ok | not) and (.problems | length) > 1' forewarn check config --config.file wrong.yaml --output json
check "check web" json '.ok == false' forewarn check web none.yml --output json
check "check model" json '.ok and .model_id' forewarn check model --output json
sed 's/^horizon: 30m/horizon: 1h/' config.yaml >hour.yaml
check "check model that does not fit" json '(.ok | not) and (.problem | contains("horizon"))' forewarn check model --config.file hour.yaml --output json
check "check queries" json 'length == 7' forewarn check queries --output json
check "check rules" json '.ok and (.asked | not) and (.files | length) == 3' forewarn check rules "$rules" --output json
sed 's/for: 30m/for: 3m/; s/failure_probability >=/failure_probabilty >=/' "$rules/forewarn.rules.yml" >wrong.rules.yml
check "check rules with problems" json '(.ok | not) and (.problems | map(.line > 0 and .group == "forewarn-pages") | all)' \
  forewarn check rules wrong.rules.yml --output json
check "model list" json '.[0].name == "default"' forewarn model list --output json
check "model inspect" json '.id' forewarn model inspect default --output json
check "model promote" json '.served == "default"' forewarn model promote default --output json
check "model export" json '.member == "random_forest"' forewarn model export --member random_forest --output forest.json --summary json
check "simulate history" json '.targets == 2 and .upcoming == null' forewarn simulate history --targets 2 --days 1 --output history.txt --summary json

# Streams and exit codes.
check "head has seen enough" bash -c 'set -o pipefail; forewarn model inspect --output json | head -n 1'
check "a full disk is a failure" exits 1 "cannot write to stdout" bash -c 'forewarn model list >/dev/full'
python3 -m http.server --bind 127.0.0.1 0 >/dev/null 2>"$work/server" &
taken=$!
sleep 1
port=$(ss -ltnp 2>/dev/null | sed -n "s/.*127\.0\.0\.1:\([0-9]*\) .*pid=$taken,.*/\1/p")

# Errors, each with its next step.
check "no config" exits 2 "forewarn init" forewarn serve --config.file none.yaml
check "a folder as config" exits 2 "--config.file" forewarn serve --config.file /tmp
check "unknown key" exits 2 "did you mean horizon?" forewarn check config --config.file wrong.yaml
sed 's|http://127.0.0.1:1|localhost:9090|' config.yaml >url.yaml
check "not a URL" exits 2 "write it like http://127.0.0.1:9090" forewarn check config --config.file url.yaml
check "Prometheus down" exits 1 "check prometheus.url" forewarn check queries
check "no rules" exits 2 "name the rule files" forewarn check rules
check "rules that cannot be run" exits 0 "no expression was run" forewarn check rules "$rules"
check "rules that differ from the config" exits 1 "keep_firing_for" forewarn check rules wrong.rules.yml
check "no rule file" exits 1 "is no file of rule groups" forewarn check rules config.yaml
check "wrong time" exits 2 "write RFC 3339" forewarn backtest --start yesterday --end now
check "range the wrong way round" exits 2 "is not before --end" forewarn backtest --start now --end 7d
check "no such model" exits 1 "forewarn model list" forewarn model promote nosuch
check "no model at all" exits 1 "forewarn train" env MODEL_PATH=nowhere forewarn model inspect
check "nothing to go back to" exits 1 "forewarn model list" forewarn model rollback
check "no target in a file" exits 1 "forewarn serve" bash -c 'echo "{\"cpu_usage\": 1, \"target\": \"web-1\"}" | forewarn predict'
check "not to be replaced" exits 1 "name another file" forewarn model export --output config.yaml
check "no folder" exits 1 "make the folder first" forewarn model export --output no/such/model.json
check "no folder for man pages" exits 1 "make the folder first" forewarn man no/such
check "no place for a model, found before any work" exits 1 "name a new folder" forewarn train --out config.yaml/model
check "no place for a history, found before any work" exits 1 "make the folder first" forewarn simulate history --output no/such
check "speed" exits 2 "use 1, 10, 12" forewarn simulate history --output - --speed 7
check "stdout twice" exits 2 "name a file" forewarn simulate history --output - --summary json
check "no fleet" exits 1 "simulate history --fleet" forewarn simulate live --fleet none.json
check "misspelt command" exits 2 "'train'" forewarn tran
if [ -n "$port" ]; then
  check "port in use" exits 1 "choose another address" forewarn serve --web.listen-address "127.0.0.1:$port"
fi
if [ "$(id -u)" -eq 0 ]; then
  mkdir locked && chmod 700 locked && chmod 755 "$work" .
  cp "$(readlink -f "$forewarn")" "$work/bin/copy"
  as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
  check "no permission to write" exits 1 "where this user may write" as_nobody "$work/bin/copy" model export --output locked/model.json
  check "no permission for the state" exits 1 "may read and write there" as_nobody env DATA_PATH=locked/data "$work/bin/copy" serve --web.listen-address 127.0.0.1:0
fi

[ "$failures" -eq 0 ] || { echo "$failures failed"; exit 1; }
echo "command line: ok"
