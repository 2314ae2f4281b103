# Sourced by tests/deploy.sh: the static binary with the files of the image in its root, no shell, no libraries, no /proc, no /tmp.
target=$(uname -m)-unknown-linux-musl
need musl-gcc=musl-tools openssl=openssl prometheus=prometheus
rustup target add "$target" >/dev/null 2>&1 || true
check "the static binary is built" cargo build --release --locked --target "$target" --quiet
image=$work/image static_port=$((port + 1)) prometheus_port=$((port + 2))
install -D "target/$target/release/forewarn" "$image/usr/bin/forewarn"
check "it needs no library" grep -q 'statically linked\|not a dynamic' <(ldd "$image/usr/bin/forewarn" 2>&1)
install -D -m 644 deploy/demo/config.yaml "$image/etc/forewarn/config.yaml"
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$image/etc/ssl/certs/ca-certificates.crt"
mkdir -p "$image/var/lib/forewarn/models" "$image/var/lib/forewarn/data"
cp -r models/default "$image/var/lib/forewarn/models/default"
chown -R 65532:65532 "$image/var/lib/forewarn"
echo 'scrape_configs: []' >"$work/prometheus.yml"
# As the Dockerfile says.
in_image=(env -i API_HOST=0.0.0.0 API_PORT="$static_port" MODEL_PATH=/var/lib/forewarn/models DATA_PATH=/var/lib/forewarn/data
  FOREWARN_PROMETHEUS_URL="http://127.0.0.1:$prometheus_port" "$(command -v chroot)" --userspec=65532:65532 --groups= "$image" /usr/bin/forewarn)
"$forewarn" simulate history --targets 10 --days 10 --fleet "$work/fleet.json" --output "$work/history.om" >/dev/null 2>&1
promtool tsdb create-blocks-from openmetrics --max-block-duration=720h "$work/history.om" "$work/tsdb" >/dev/null
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/tsdb" --storage.tsdb.retention.time=10y \
  --web.listen-address="127.0.0.1:$prometheus_port" >"$work/prometheus.log" 2>&1 &
pids+=($!)
check "Prometheus is there" soon curl -sf "http://127.0.0.1:$prometheus_port/-/ready"
"${in_image[@]}" serve --config.file=/etc/forewarn/config.yaml >"$work/static.log" 2>&1 &
pids+=($!)
check "image: its health check ends with 0" soon "${in_image[@]}" check health
check "image: ready, Prometheus answers" soon curl -sf "http://127.0.0.1:$static_port/-/ready"
check "image: predicts" soon predicts "$static_port"
has_targets() { curl -sf "http://127.0.0.1:$static_port/metrics" | grep -q '^forewarn_prometheus_up 1'; }
check "image: cycles" soon has_targets
check "image: trains on 10 days" "${in_image[@]}" train --config.file=/etc/forewarn/config.yaml --start=10d --promote=if-better
trained() { curl -sf "http://127.0.0.1:$static_port/metrics" | grep '^forewarn_model_info' | grep -q 'origin="history"'; }
check "image: serves the new model" soon trained
# The authorities are read from the image's file: a server's certificate is unknown until its issuer stands there.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=upstream -addext subjectAltName=IP:127.0.0.1 \
  -addext keyUsage=digitalSignature -addext basicConstraints=CA:FALSE -keyout "$work/tls.key" -out "$work/tls.pem" 2>/dev/null
openssl s_server -accept "127.0.0.1:$((port + 3))" -key "$work/tls.key" -cert "$work/tls.pem" -www >/dev/null 2>&1 &
pids+=($!)
says_unknown() { ("${in_image[@]/http:*/https:\/\/127.0.0.1:$((port + 3))}" check queries --config.file=/etc/forewarn/config.yaml 2>&1 || true) | tee "$work/out" | grep -q UnknownIssuer; }
check "image: who is not in ca-certificates.crt is refused" soon says_unknown
cat "$work/tls.pem" >>"$image/etc/ssl/certs/ca-certificates.crt"
says_known() { ! says_unknown && grep -q "127.0.0.1:$((port + 3))" "$work/out"; }
check "image: who is in it is not" says_known
check "image: nothing was written but models and data" \
  test -z "$(find "$image" -newer "$work/prometheus.yml" -type f -not -path "$image/var/lib/forewarn/*" -not -name ca-certificates.crt)"
