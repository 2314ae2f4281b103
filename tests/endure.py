#!/usr/bin/env python3
"""Chaos and soak: forewarn serve against a real Prometheus for a long time, under load.

    tests/endure.py --minutes 10 --targets 20 --step 1 --chaos      faults towards Prometheus and from clients, in random order
    tests/endure.py --minutes 30 --targets 1000 --step 5            load alone

A simulated minute takes `--step` seconds, as does a cycle; everything else (horizon, rates, scrapes) shrinks with it. Between
forewarn and Prometheus stands a proxy that can break answers. It ends with what was seen and with 1 if anything is wrong:
forewarn must end healthy, with all targets scored or saying why not, no acknowledged alert missing, memory within 5 % of what
it was after the first third, no more file descriptors than then, and hardly more threads (those of the blocking pool come and go). Needs target/release/forewarn (or FOREWARN_BIN).
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOREWARN = os.environ.get("FOREWARN_BIN", str(ROOT / "target/release/forewarn"))
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def scaled(text, step):
    """Durations of at least a minute, on a clock on which a minute takes `step` seconds."""

    def shrink(match):
        seconds = int(match[1]) * SECONDS[match[2]] * step / 60
        return f"{max(1, round(seconds))}s"

    return re.sub(r"\b(\d+)([mhd])\b", shrink, text)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Proxy:
    """Passes HTTP requests on to Prometheus and breaks the answers as `fault` says."""

    FAULTS = [
        "refuse", "reset", "hang", "hang_in_body", "truncate", "drip", "huge", "html", "bad_gateway", "unavailable",
        "too_many_requests", "unauthorized", "garbage", "wrong_type", "empty", "redirect_loop", "ten_times", "duplicates",
        "skewed", "partial", "relabelled",
    ]

    def __init__(self, upstream):
        self.upstream = upstream
        self.fault = None
        self.broken = 0
        self.passed = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.guarded, args=(client,), daemon=True).start()

    def guarded(self, client):
        try:
            with client:
                self.serve(client)
        except (OSError, ValueError, http.client.HTTPException):
            pass

    def serve(self, client):
        client.settimeout(120)
        buffered = b""
        while True:
            while b"\r\n\r\n" not in buffered:
                if self.fault == "refuse":
                    return
                read = client.recv(65536)
                if not read:
                    return
                buffered += read
            head, _, buffered = buffered.partition(b"\r\n\r\n")
            request, *lines = head.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            length = int(headers.get("content-length", 0))
            while len(buffered) < length:
                read = client.recv(65536)
                if not read:
                    return
                buffered += read
            body, buffered = buffered[:length], buffered[length:]
            method, path, _ = request.split(" ")
            fault = self.fault
            if not self.answer(client, fault, method, path, headers, body):
                return

    def answer(self, client, fault, method, path, headers, body):
        """Whether the connection goes on."""
        self.broken += fault is not None
        self.passed += fault is None
        whole = lambda status, kind, text: client.sendall(
            f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text
        )
        match fault:
            case "refuse":
                return False
            case "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return False
            case "hang":
                self.wait(fault)
                return False
            case "html":
                whole("200 OK", "text/html", b"<html><body>Sign in</body></html>")
            case "bad_gateway":
                whole("502 Bad Gateway", "text/html", b"<html><h1>502 Bad Gateway</h1></html>")
            case "unavailable":
                whole("503 Service Unavailable", "text/plain", b"starting")
            case "too_many_requests":
                whole("429 Too Many Requests", "application/json", b'{"status":"error","errorType":"too_many_requests","error":"slow down"}')
            case "unauthorized":
                whole("401 Unauthorized", "text/plain", b"no org id\n")
            case "garbage":
                client.sendall(random.randbytes(2000))
                return False
            case "empty":
                whole("200 OK", "application/json", b"")
            case "redirect_loop":
                client.sendall(f"HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n".encode())
            case "huge":
                client.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{"status":"success","data":{"resultType":"vector","result":[')
                piece = b'{"metric":{"instance":"x"},"value":[1,"1"]},' * 2000
                while self.fault == fault:
                    client.sendall(piece)
                return False
            case _:
                self.forward(client, fault, method, path, headers, body)
                return fault not in ("truncate", "hang_in_body", "drip")
        return True

    def forward(self, client, fault, method, path, headers, body):
        upstream = http.client.HTTPConnection(self.upstream, timeout=60)
        sent = {"Content-Type": headers["content-type"]} if "content-type" in headers else {}
        upstream.request(method, path, body, sent)
        answer = upstream.getresponse()
        text, kind = answer.read(), answer.headers.get("Content-Type", "")
        upstream.close()
        text = self.change(fault, text)
        if fault == "wrong_type":
            kind = "text/plain"
        head = f"HTTP/1.1 {answer.status} {answer.reason}\r\nContent-Type: {kind}\r\nContent-Length: {len(text)}\r\n\r\n".encode()
        if fault in ("truncate", "hang_in_body"):
            client.sendall(head + text[: len(text) // 2])
            if fault == "hang_in_body":
                self.wait(fault)
        elif fault == "drip":
            client.sendall(head)
            for byte in text:
                if self.fault != fault:
                    return
                client.sendall(bytes([byte]))
                time.sleep(0.02)
        else:
            client.sendall(head + text)

    def change(self, fault, text):
        if fault not in ("ten_times", "duplicates", "skewed", "partial", "relabelled"):
            return text
        try:
            document = json.loads(text)
            series = document["data"]["result"]
        except (ValueError, KeyError, TypeError):
            return text
        if fault == "ten_times":
            document["data"]["result"] = [
                one | {"metric": one["metric"] | {"instance": f"{one['metric'].get('instance')}-{n}"}} for one in series for n in range(10)
            ]
        elif fault == "duplicates":
            document["data"]["result"] = [one | {"metric": one["metric"] | {"replica": str(n)}} for one in series for n in range(2)]
        elif fault == "relabelled":
            for one in series:
                one["metric"] = {"pod": one["metric"].get("instance", "")}
        elif fault == "skewed":
            for one in series:
                for key in ("value", "values"):
                    if key in one:
                        points = [one[key]] if key == "value" else one[key]
                        for point in points:
                            point[0] += random.choice([-3600, 3600])
        elif fault == "partial":
            document["warnings"] = ["some series may be missing: store-1 did not answer"]
            document["isPartial"] = True
            document["data"]["result"] = series[::2]
        return json.dumps(document).encode()

    def wait(self, fault):
        while self.fault == fault:
            time.sleep(0.05)


class World:
    def __init__(self, arguments):
        self.arguments = arguments
        # What some three million rows are, which training can hold beside the rest.
        self.days = min(arguments.days, max(2, 2000 // arguments.targets))
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="forewarn-endure."))
        self.processes = []
        self.problems = []
        self.counts = {}
        self.lock = threading.Lock()
        self.is_over = threading.Event()

    def count(self, what, by=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + by

    def say(self, text):
        print(f"[{time.monotonic() - self.began:5.0f} s] {text}", flush=True)

    def start(self, name, url, command, environment=None):
        log = open(self.work / f"{name}.log", "ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | (environment or {}))
        self.processes.append(process)
        for _ in range(600):
            if process.poll() is not None:
                sys.exit(f"{name} ended with {process.returncode}; see {log.name}")
            try:
                urllib.request.urlopen(url, timeout=2).close()
                return process
            except OSError:
                time.sleep(0.1)
        sys.exit(f"{name} does not answer at {url}; see {log.name}")

    def set_up(self):
        self.began = time.monotonic()
        step, targets = self.arguments.step, self.arguments.targets
        speed = 60 // step
        run = lambda *command: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=open(self.work / "setup.log", "ab"))
        self.say(f"history of {targets} targets, {self.days} simulated days")
        run(FOREWARN, "simulate", "history", "--targets", str(targets), "--days", str(self.days), "--seed", "3", "--speed", str(speed),
            "--fleet", str(self.work / "fleet.json"), "--output", str(self.work / "history.om"))
        run("promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=720h", str(self.work / "history.om"), str(self.work / "prometheus"))
        (self.work / "history.om").unlink()
        fleet, prometheus, self.port = free_port(), free_port(), free_port()
        text = (ROOT / "deploy/demo/prometheus.yml").read_text()
        text = re.sub(r"rule_files:.*\n|alerting:\n(  .*\n)+", "", text)
        for name, value in {"SCRAPE": f"{step}s", "PORT": self.port, "FLEET_PORT": fleet}.items():
            text = text.replace(f"@{name}@", str(value))
        (self.work / "prometheus.yml").write_text(text)
        self.start("fleet", f"http://127.0.0.1:{fleet}/", [FOREWARN, "simulate", "live", "--listen", f"127.0.0.1:{fleet}", "--fleet", str(self.work / "fleet.json")])
        self.start("prometheus", f"http://127.0.0.1:{prometheus}/-/ready",
                   ["prometheus", f"--config.file={self.work}/prometheus.yml", f"--storage.tsdb.path={self.work}/prometheus", "--storage.tsdb.retention.time=10y",
                    f"--query.lookback-delta={5 * step}s", f"--web.listen-address=127.0.0.1:{prometheus}"])
        config = scaled((ROOT / "deploy/demo/config.yaml").read_text(), step)
        self.config = self.work / "config.yaml"
        self.proxy = Proxy(f"127.0.0.1:{prometheus}")
        self.environment = {"FOREWARN_PROMETHEUS_URL": f"http://127.0.0.1:{self.proxy.port}", "MODEL_PATH": str(self.work / "models"), "DATA_PATH": str(self.work / "state")}
        self.say("training")
        for seed in (1, 2):
            config_of = self.work / f"train-{seed}.yaml"
            config_of.write_text(config.replace("train:\n", f"train:\n  seed: {seed}\n"))
            subprocess.run([FOREWARN, "train", "--config.file", str(config_of), "--start", scaled(f"{self.days}d", step), "--force"], check=True,
                           stdout=subprocess.DEVNULL, stderr=open(self.work / "train.log", "ab"), env=os.environ | self.environment)
        self.models = [p.name for p in (self.work / "models").iterdir() if (p / "manifest.json").exists()]
        # Trains in the background four times.
        config = config.replace("train:\n", f"train:\n  schedule: {max(1, round(15 * self.arguments.minutes))}s\n")
        config = re.sub(r"range: \d+s", f"range: {self.days * 24 * 60 * step}s", config)
        self.config.write_text(config.replace("url: ${FOREWARN_PROMETHEUS_URL}", f"url: ${{FOREWARN_PROMETHEUS_URL}}\n  timeout: {2 * step}s"))
        self.url = f"127.0.0.1:{self.port}"
        self.forewarn = self.start("forewarn", f"http://{self.url}/-/ready",
                                   [FOREWARN, "serve", "--config.file", str(self.config), "--web.listen-address", self.url, "--web.enable-lifecycle"], self.environment)

    # What clients do.

    def predict(self, batch):
        names = [t["target"] for t in json.loads(self.get("/api/v1/targets"))["targets"]] or [None]
        connection, n = None, 0
        while not self.is_over.is_set():
            row = {"cpu_usage": random.uniform(0, 100), "memory_usage": random.uniform(0, 100), "error_count": random.randrange(50)}
            n += 1
            if n % 3 == 0 and not batch:
                row["target"] = random.choice(names)
            body = json.dumps([row] * 50 if batch else row)
            try:
                connection = connection or http.client.HTTPConnection(self.url, timeout=20)
                connection.request("POST", "/predict/batch" if batch else "/predict", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                # A target may be unknown just after a reload while Prometheus is cut off.
                expected = (200, 422) if self.arguments.chaos and "target" in row else (200,)
                if answer.status not in expected:
                    self.wrong(f"POST /predict: {answer.status} {text[:200]}")
                self.count(f"predict {answer.status}")
            except (OSError, http.client.HTTPException) as error:
                self.wrong(f"POST /predict: {error!r}")
                connection = None
            time.sleep(0.005)

    def webhook(self):
        n = 0
        while not self.is_over.is_set():
            alerts = []
            for _ in range(random.randint(1, 5)):
                n += 1
                alerts.append({"status": "firing", "labels": {"alertname": "Endured", "instance": f"host-{n}", "severity": "warning"}, "annotations": {},
                               "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z", "fingerprint": f"{n:016x}"})
            body = json.dumps({"version": "4", "status": "firing", "alerts": alerts})
            for _ in range(2):  # The second one is a repetition.
                try:
                    request = urllib.request.Request(f"http://{self.url}/webhook/alertmanager", body.encode(), {"Content-Type": "application/json"})
                    urllib.request.urlopen(request, timeout=20).close()
                except OSError as error:
                    self.wrong(f"webhook: {error!r}")
                    break
            else:
                self.count("alerts acknowledged", len(alerts))
            time.sleep(0.05)

    def scrape(self):
        while not self.is_over.is_set():
            for route in ("/metrics", "/", "/api/v1/targets", "/-/healthy", "/api/v1/incidents"):
                began = time.monotonic()
                try:
                    self.get(route)
                    self.count("pages read")
                except OSError as error:
                    self.wrong(f"GET {route}: {error!r}")
                self.slowest = max(self.slowest, time.monotonic() - began)
            time.sleep(1)

    def nag(self):
        """A client that means no good."""
        while not self.is_over.is_set():
            what = random.choice(["half", "garbage", "large", "deep", "many", "drip"])
            self.count("hostile requests")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
                    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                    match what:
                        case "half":
                            client.sendall(head)
                            time.sleep(random.random())
                        case "garbage":
                            client.sendall(random.randbytes(4000))
                        case "large":
                            client.sendall(head + b"Content-Length: 50000000\r\n\r\n" + b" " * 1_000_000)
                        case "deep":
                            body = b"[" * 100_000
                            client.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
                        case "many":
                            client.sendall(head + b"".join(f"X-{n}: y\r\n".encode() for n in range(5000)) + b"\r\n")
                        case "drip":
                            for byte in head[:40]:
                                client.sendall(bytes([byte]))
                                time.sleep(0.02)
                    client.recv(1000)
            except OSError:
                pass
            time.sleep(0.2)

    def disturb(self):
        """One fault after the other, with pauses; models and configs change meanwhile."""
        faults = []
        while not self.is_over.is_set():
            if not faults:
                faults = random.sample(Proxy.FAULTS, len(Proxy.FAULTS))
            fault = faults.pop()
            self.proxy.fault = fault
            self.count(f"fault {fault}")
            if self.is_over.wait(random.uniform(0.5, 6) * self.arguments.step):
                break
            self.proxy.fault = None
            if random.random() < 0.3:
                model = random.choice(self.models)
                subprocess.run([FOREWARN, "model", "promote", model, "--config.file", str(self.config)], check=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env=os.environ | self.environment)
                self.forewarn.send_signal(signal.SIGHUP)
                self.count("reloads")
            if self.is_over.wait(random.uniform(0.5, 4) * self.arguments.step):
                break
        self.proxy.fault = None

    # What is seen.

    def wrong(self, what):
        with self.lock:
            if len(self.problems) < 20:
                self.problems.append(what)

    def get(self, route):
        with urllib.request.urlopen(f"http://{self.url}{route}", timeout=20) as answer:
            return answer.read().decode()

    def metric(self, name):
        values = [float(line.rsplit(" ", 1)[1]) for line in self.get("/metrics").splitlines() if line.startswith(name)]
        return sum(values) if values else None

    def look(self):
        status = pathlib.Path(f"/proc/{self.forewarn.pid}/status").read_text()
        number = lambda key: int(re.search(rf"{key}:\s+(\d+)", status)[1])
        return {"rss": number("VmRSS") / 1024, "threads": number("Threads"), "fds": len(os.listdir(f"/proc/{self.forewarn.pid}/fd"))}

    def run(self):
        self.set_up()
        self.slowest = 0.0
        jobs = [lambda: self.predict(False), lambda: self.predict(True), self.webhook, self.scrape]
        if self.arguments.chaos:
            jobs += [self.nag, self.disturb]
        threads = [threading.Thread(target=job, daemon=True) for job in jobs]
        for thread in threads:
            thread.start()
        self.say(f"{self.arguments.minutes} minutes of load" + (" and faults" if self.arguments.chaos else ""))
        seen, end = [], time.monotonic() + 60 * self.arguments.minutes
        while time.monotonic() < end:
            if self.forewarn.poll() is not None:
                self.wrong(f"forewarn ended with {self.forewarn.returncode}")
                break
            seen.append(self.look())
            if len(seen) % 60 == 0:
                self.say(f"RSS {seen[-1]['rss']:.1f} MiB, {seen[-1]['fds']} fds, {seen[-1]['threads']} threads, {self.counts}")
            time.sleep(1)
        self.is_over.set()
        for thread in threads:
            thread.join(60)
        if self.forewarn.poll() is None:
            self.judge(seen)
        return self.report(seen)

    def judge(self, seen):
        step = self.arguments.step
        deadline = time.monotonic() + 60 + 20 * step
        while True:
            targets = json.loads(self.get("/api/v1/targets"))["targets"]
            stale = [t["target"] for t in targets if t["state"] in ("stale", "missing_data", "warming_up")]
            late = time.time() - (self.metric("forewarn_cycle_last_success_timestamp_seconds") or 0)
            if self.metric("forewarn_prometheus_up") == 1 and len(targets) == self.arguments.targets and not stale and late < 3 * step + 1:
                break
            if time.monotonic() > deadline:
                self.wrong(f"not healthy at the end: {len(targets)} targets, unscored {stale[:5]}, last success {late:.0f} s ago")
                break
            time.sleep(step)
        scored = self.metric("failure_probability{")
        self.counts["targets with a probability at the end"] = sum(t["state"] == "ok" for t in targets)
        if scored is None:
            self.wrong("no failure_probability at the end")
        if self.metric('forewarn_trainings_total{result="failed"}') and not self.arguments.chaos:
            self.wrong("a scheduled training failed")
        stored = self.metric('forewarn_webhook_alerts_total{result="stored"}')
        if stored != self.counts.get("alerts acknowledged", 0):
            self.wrong(f"{self.counts.get('alerts acknowledged', 0)} alerts were acknowledged, {stored} are stored")
        time.sleep(3)
        third, end = seen[len(seen) // 3 : 2 * len(seen) // 3], self.look()
        for what, slack in (("rss", 1.05), ("fds", 1.0), ("threads", 1.25)):
            values = [s[what] for s in third]
            before = statistics.median(values) if what == "rss" else max(values)
            now = statistics.median([s[what] for s in seen[-len(seen) // 6 :]]) if what == "rss" else end[what]
            self.counts[f"{what}, middle third and end"] = f"{before:.1f} {now:.1f}"
            if now > slack * before:
                self.wrong(f"{what} grew from {before:.1f} to {now:.1f}")
        self.counts["slowest page, s"] = round(self.slowest, 2)
        for name in ("forewarn_trainings_total", "forewarn_cycles_total", "forewarn_cycles_missed_total", "forewarn_queries_total"):
            self.counts[name] = self.metric(name)

    def report(self, seen):
        log = (self.work / "forewarn.log").read_text(errors="replace")
        if "panicked" in log:
            self.wrong("a panic in the log")
        self.forewarn.send_signal(signal.SIGTERM)
        try:
            if self.forewarn.wait(30) != 0:
                self.wrong(f"SIGTERM ended it with {self.forewarn.returncode}")
        except subprocess.TimeoutExpired:
            self.wrong("SIGTERM did not end it within 30 s")
        for what, number in sorted(self.counts.items()):
            print(f"  {what}: {number}")
        if seen:
            print(f"  RSS, MiB: {min(s['rss'] for s in seen):.1f} to {max(s['rss'] for s in seen):.1f}")
        print(f"  requests to Prometheus: {self.proxy.passed} passed on, {self.proxy.broken} broken")
        for problem in self.problems:
            print(f"FAIL  {problem}")
        print("FAIL" if self.problems else "ok    it endured", flush=True)
        return 1 if self.problems else 0

    def tear_down(self, status):
        for process in self.processes:
            process.kill()
        if status:
            print(f"logs are kept in {self.work}")
        else:
            shutil.rmtree(self.work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--days", type=int, default=14, help="simulated days of history to train on, fewer when that is more than some three million rows")
    parser.add_argument("--step", type=int, default=1, help="seconds of a cycle")
    parser.add_argument("--chaos", action="store_true")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the faults")
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    world = World(arguments)
    status = 1
    try:
        status = world.run()
    finally:
        world.tear_down(status)
    sys.exit(status)


main()
