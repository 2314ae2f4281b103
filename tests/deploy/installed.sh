# Sourced by tests/deploy.sh: the package installed into a Debian of its own, whose systemd runs the unit. Needs root.
need debootstrap=debootstrap ip=iproute2
debian=$PWD/target/debian-root
if [ ! -e "$debian/ready" ]; then
  rm -rf "$debian"
  # One of the two kinds of files is there.
  mirror=$({ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true; } |
    sed -nE 's,^URIs: *(\S*/debian)/?\s*$,\1,p; s,^deb(\s+\[[^]]*\])?\s+(\S*/debian)/?\s.*,\2,p' | head -n 1)
  check "debootstrap" debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,adduser,procps,ca-certificates,curl,prometheus \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$debian" "$mirror"
  touch "$debian/ready"
fi
machine=$work/machine
cp -a "$debian" "$machine"
cp "$deb" "$machine/srv/forewarn.deb"
check "dpkg --install" chroot "$machine" dpkg --install /srv/forewarn.deb
check "the user is there" chroot "$machine" id forewarn
for unit in systemd-udevd systemd-udev-trigger systemd-sysctl systemd-modules-load proc-sys-fs-binfmt_misc.automount; do
  chroot "$machine" systemctl mask "$unit" >/dev/null 2>&1
done
# Ten days of a fleet, a config that learns from them by itself.
chroot "$machine" forewarn simulate history --targets 10 --days 10 --fleet /srv/fleet.json --output /srv/history.om >/dev/null 2>&1
chroot "$machine" promtool tsdb create-blocks-from openmetrics --max-block-duration=720h /srv/history.om /var/lib/prometheus/metrics2 >/dev/null
chroot "$machine" chown -R prometheus: /var/lib/prometheus
echo 'scrape_configs: []' >"$machine/etc/prometheus/prometheus.yml"
echo 'ARGS="--storage.tsdb.retention.time=10y"' >"$machine/etc/default/prometheus"
{
  sed 's/^  range: 30d/  range: 10d\n  schedule: 1h/' deploy/demo/config.yaml
  printf 'model: {path: /var/lib/forewarn/models/}\nstate: {path: /var/lib/forewarn/data/}\n'
} >"$machine/etc/forewarn/config.yaml"
echo FOREWARN_PROMETHEUS_URL=http://127.0.0.1:9090 >>"$machine/etc/default/forewarn"

# Namespaces of its own for processes, mounts and the network, and a control group of its own.
group=$(findmnt -n -t cgroup2 -o TARGET | head -n 1)/forewarn-test-$$
mkdir "$group"
# shellcheck disable=SC2016
boot='machine=$0
  mount --make-rprivate / && mount --bind "$machine" "$machine"
  mount -t proc proc "$machine/proc" && mount -t sysfs sysfs "$machine/sys" && mount -t cgroup2 cgroup2 "$machine/sys/fs/cgroup"
  mount -t tmpfs tmpfs "$machine/run" && mount -t tmpfs tmpfs "$machine/tmp" && mount --rbind /dev "$machine/dev"
  ip link set lo up
  cd "$machine" && mkdir -p .old && pivot_root . .old && umount -l /.old
  export container=chroot
  exec /lib/systemd/systemd'
(
  sh -c 'echo $PPID' >"$group/cgroup.procs"
  exec unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup bash -ec "$boot" "$machine"
) >"$work/boot.log" 2>&1 &
pids+=($!)
inside() {
  local init
  init=$(pgrep --parent "$(pgrep --full "unshare.*$machine" | head -n 1)" | head -n 1)
  nsenter --target "$init" --all --root --wd "$@"
}
check "systemd is up and forewarn active" soon inside systemctl is-active forewarn
check "as its own user" test "$(inside sh -c 'ps -o user= -p "$(systemctl show -P MainPID forewarn)"')" = forewarn
check "predicts" soon inside sh -c "curl -sf -H 'Content-Type: application/json' -d '$body' http://127.0.0.1:8000/predict"
check "its health check ends with 0" inside forewarn check health
trained() { for _ in $(seq 300); do inside journalctl -u forewarn | grep -q 'scheduled training is done' && return; sleep 1; done; return 1; }
check "a scheduled training gets through the unit's sandbox" trained
check "systemctl reload" inside systemctl reload forewarn
check "an upgrade keeps it running" inside dpkg --install --force-confold /srv/forewarn.deb
check "active" soon inside systemctl is-active forewarn
inside sh -c 'echo "signals: 1" >>/etc/forewarn/config.yaml'
inside systemctl restart forewarn >/dev/null 2>&1 || true
failed() { [ "$(inside systemctl is-failed forewarn)" = failed ] && inside journalctl -u forewarn | grep -q config.yaml; }
check "a config that is wrong ends it, once, and says why" soon failed
check "dpkg --purge" inside dpkg --purge forewarn
check "leaves nothing behind" inside sh -c '! ls -d /etc/forewarn /var/lib/forewarn /etc/default/forewarn 2>/dev/null | grep .'
{ kill -KILL "${pids[-1]}" && wait "${pids[-1]}"; } 2>/dev/null || true
gone() { find "$group" -depth -type d -exec rmdir {} +; }
check "everything in it has ended" soon gone
