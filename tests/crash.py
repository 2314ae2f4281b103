"""Kills forewarn at random moments and looks at what is left.

serve   under load of webhooks, with a cycle a second, at its start, and while it updates an older state:
        nothing that was answered 2xx is missing, nothing is counted twice, it starts again by itself.
full    the file of the state may not grow any more: webhooks are answered 503, cycles go on, and it heals by itself.
train   `train`, `model promote` and `model rollback`: `current` always names one whole model, and the next run works.

Prometheus is played by this script: targets that fail several times a minute, after their memory has filled up.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import hashlib
import http.client
import http.server
import json
import math
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.parse
from datetime import datetime, timezone

ROOT = pathlib.Path(__file__).parents[1]
BIN = os.path.abspath(os.environ["FOREWARN_BIN"])
TARGETS = [f"t{n}" for n in range(6)]
# Fails only by what the webhook says.
HOOK = "hook"
FIRING, RESOLVED = 1, 2
# Servers, so that the end of the test is their end.
STARTED = []

CONFIG = """
prometheus: {{url: "http://127.0.0.1:{upstream}"}}
targets: {{label: instance}}
signals:
  cpu_usage: {{query: cpu}}
  memory_usage: {{query: memory}}
  error_count: {{query: errors}}
step: 1s
horizon: 10s
failure:
  queries: [failing]
  alerts: [{{severity: critical}}]
  merge_gap: 0s
train: {{recovery: 2s, search: false, folds: 2, xgboost: {{n_estimators: 20}}, random_forest: {{n_estimators: 20}}}}
alerting: {{for: 0s, false_alarms_per_week: 10000}}
model: {{path: {models}}}
state: {{path: {state}}}
"""


def noise(*key):
    """A number from 0 to 1 that is always the same for the same key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32


def failure(target, t):
    """Start and end of the failure of a target's period in which the second `t` lies; each takes a part of 30 seconds."""
    n = TARGETS.index(target)
    period = (t + 5 * n) // 30
    start = period * 30 - 5 * n + 20 + int(5 * noise(target, period))
    return start, start + 4


def value(query, target, t):
    if target == HOOK:
        until = 100
    else:
        start, end = failure(target, t)
        until = start - t if t < start else 100
        if query == "failing":
            return 1 if start <= t < end else None
    if query not in ("cpu", "memory", "errors"):
        return None
    jitter = noise(query, target, t)
    if query == "memory":
        return 40 + 10 * jitter + max(0, 12 - until) * 4
    return 20 + 10 * jitter if query == "cpu" else int(jitter > 0.9)


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    rules = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        form = dict(urllib.parse.parse_qsl(body or urllib.parse.urlsplit(self.path).query))
        if "rules" in self.path:
            data = {"groups": [{"rules": self.rules}]}
        else:
            ranged = "query_range" in self.path
            if ranged:
                start, end, step = (int(float(form[key])) for key in ("start", "end", "step"))
                grid = range(start, end + 1, step)
            else:
                grid = [int(float(form["time"]))]
            result = []
            for target in TARGETS + [HOOK]:
                values = [[t, str(v)] for t in grid if (v := value(form["query"], target, t)) is not None]
                if values:
                    shown = {"values": values} if ranged else {"value": values[0]}
                    result.append({"metric": {"instance": target}} | shown)
            data = {"resultType": "matrix" if ranged else "vector", "result": result}
        answer = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST

    def handle(self):
        # Who asked was killed.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *_):
        pass


def start_upstream():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def rfc3339(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fail(text):
    print(f"FAIL  {text}", flush=True)
    sys.exit(1)


def check(ok, what, detail=""):
    if not ok:
        fail(f"{what}: {detail}" if detail != "" else what)


class Place:
    """A configuration with its models and its state."""

    def __init__(self, work, name, upstream, models):
        self.state = work / name
        self.models = models
        self.config = work / f"{name}.yaml"
        self.config.write_text(CONFIG.format(upstream=upstream, models=models, state=self.state))

    def spawn(self, words, log):
        # Where the file may not grow, the system sends SIGXFSZ; with a full disk it does not.
        ignore = lambda: signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        env = {**os.environ, "LOG_LEVEL": "warn"}
        command = [BIN, *words.split(), "--config.file", str(self.config)]
        return subprocess.Popen(command, stdout=log, stderr=log, env=env, preexec_fn=ignore, restore_signals=False)

    def run(self, words):
        with tempfile.TemporaryFile() as log:
            process = self.spawn(words, log)
            status = process.wait(timeout=300)
            log.seek(0)
            return status, log.read().decode()

    def ok(self, words):
        status, text = self.run(words)
        check(status == 0, f"forewarn {words} ended with {status}", text)
        return text


class Server:
    """`forewarn serve`, started again and again in one place."""

    def __init__(self, place, log):
        self.place = place
        self.port = free_port()
        self.log_path = log
        self.process = None

    def start(self, wait=True):
        self.log = open(self.log_path, "w+b")
        STARTED.append(self)
        self.began = time.monotonic()
        self.process = self.place.spawn(f"serve --web.listen-address 127.0.0.1:{self.port}", self.log)
        if wait:
            self.until("/-/ready")

    def until(self, route):
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get(route)[0] == 200:
                    return
            check(self.process.poll() is None, "forewarn did not start again by itself", self.text())
            check(time.monotonic() < self.began + 60, f"{route} does not answer within a minute", self.text())
            time.sleep(0.005)

    def get(self, route):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", route)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def json(self, route):
        status, text = self.get(route)
        check(status == 200, f"{route} answers {status}", text)
        return json.loads(text)

    def metric(self, series):
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(series + " "):
                return float(line.split()[-1])
        fail(f"/metrics has no {series}")

    def text(self):
        self.log.flush()
        return pathlib.Path(self.log_path).read_text()

    def kill(self):
        """SIGKILL; whatever ended it before is a finding."""
        check(self.process.poll() is None, f"forewarn ended with {self.process.returncode}", self.text())
        self.process.kill()
        self.process.wait()
        text = self.text()
        for word in ("panicked", "damaged", "ERROR"):
            check(word not in text, f"the log says {word}", text)
        self.log.close()


class Load:
    """Threads that deliver as Alertmanager does: what is not answered 2xx is sent again, some things are repeated anyway."""

    def __init__(self, port, threads, rng):
        self.port = port
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.count = 0
        self.known = []
        self.sent = {}  # (fingerprint, start): status bits
        self.acknowledged = {}
        self.stored = 0  # as the answers say
        self.answers = collections.Counter()
        self.spells = []  # of HOOK
        self.pool = concurrent.futures.ThreadPoolExecutor(threads + 1)
        self.running = [self.pool.submit(self.deliver_many, random.Random(rng.random())) for _ in range(threads)]
        self.running.append(self.pool.submit(self.fail_hook, random.Random(rng.random())))

    def alerts(self, rng):
        """New alerts, or a delivery that was made before, or some alerts of one with their end."""
        with self.lock:
            self.count += 1
            number = self.count
            old = rng.choice(self.known) if self.known and rng.random() < 0.5 else None
        if old:
            return [{**alert, "status": "resolved", "endsAt": alert["end"]} if rng.random() < 0.5 else alert for alert in old]
        now = time.time()
        new = []
        for i in range(rng.choice([1, 1, 3, 20])):
            start = round(now - 600 * rng.random(), 3)
            name = f"{number}-{i}"
            new.append({
                "status": "firing", "labels": {"alertname": "Load", "id": name}, "annotations": {"text": "x" * 200},
                "startsAt": rfc3339(start), "endsAt": "0001-01-01T00:00:00Z",
                "fingerprint": hashlib.blake2b(name.encode(), digest_size=8).hexdigest(), "end": rfc3339(start + 60),
            })
        with self.lock:
            self.known.append(new)
        return [{**alert, "status": "resolved", "endsAt": alert["end"]} if rng.random() < 0.2 else alert for alert in new]

    def deliver_many(self, rng):
        connection = None
        while not self.stop.is_set():
            connection = self.deliver(self.alerts(rng), connection)

    def deliver(self, alerts, connection=None):
        keys = [((a["fingerprint"], a["startsAt"]), FIRING if a["status"] == "firing" else RESOLVED) for a in alerts]
        with self.lock:
            for key, status in keys:
                self.sent[key] = self.sent.get(key, 0) | status
        body = json.dumps({"version": "4", "alerts": alerts})
        # Not even the end of the test leaves anything undelivered.
        while True:
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                connection.request("POST", "/webhook/alertmanager", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = response.read()
                with self.lock:
                    self.answers[response.status] += 1
                if response.status == 200:
                    break
                check(response.status == 503, f"a webhook was answered {response.status}", answer)
            except (OSError, http.client.HTTPException):
                connection = None
            time.sleep(0.02)
        with self.lock:
            self.stored += json.loads(answer)["stored"]
            for key, status in keys:
                self.acknowledged[key] = self.acknowledged.get(key, 0) | status
        return connection

    def fail_hook(self, rng):
        """Failures that only the webhook knows, delivered late, one after another."""
        while not self.stop.wait(rng.uniform(4, 6)):
            start = round(time.time() - rng.uniform(0, 2), 3)
            end = round(start + rng.uniform(4, 8), 3)
            alert = {
                "status": "firing", "labels": {"alertname": "Hook", "severity": "critical", "instance": HOOK, "id": str(start)},
                "startsAt": rfc3339(start), "fingerprint": f"hook-{start}",
            }
            self.deliver([alert])
            while time.time() < end:
                time.sleep(0.1)
            self.deliver([{**alert, "status": "resolved", "endsAt": rfc3339(end)}])
            with self.lock:
                self.spells.append((start, end))

    def end(self):
        self.stop.set()
        for running in self.running:
            running.result()
        self.pool.shutdown()


def millis(text):
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def database(path):
    connection = sqlite3.connect(path / "forewarn.db")
    found = connection.execute("PRAGMA integrity_check").fetchall()
    check(found == [("ok",)], "integrity_check", found)
    return connection


def check_copy(state, work):
    """The file as the kill left it; a copy, because looking at it would repair it."""
    copy = work / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(state, copy)
    database(copy).close()


def older_state(path, version):
    """A state of an earlier schema with a thousand alerts more."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    connection = sqlite3.connect(path / "forewarn.db")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript((ROOT / f"tests/fixtures/state/{version}.sql").read_text())
    now = round(time.time() * 1000)
    # Older than what a cycle looks back for, younger than the retention.
    shift = now - 864_000_000 - connection.execute("SELECT max(starts_at) FROM alerts").fetchone()[0]
    for table, columns in (("alerts", ("starts_at", "ends_at", "received_at")), ("incidents", ("started", "ended")), ("alarms", ("opened", "covers_until"))):
        connection.execute(f"UPDATE {table} SET {', '.join(f'{c} = {c} + {shift}' for c in columns)}")
    row = "INSERT INTO alerts VALUES (?, ?, ?, 3, 0, ?, '{}', '{}')"
    connection.executemany(row, ((f"more-{n}", now - n, now, now) for n in range(1000)))
    connection.commit()
    content = rows_of(connection)
    connection.close()
    return content


def rows_of(connection):
    # A cycle ends the incidents of targets that are gone.
    columns = {"alerts": "*", "incidents": "target, started, source, foreseen_seconds, reasons", "alarms": "*"}
    return {table: set(connection.execute(f"SELECT {wanted} FROM {table}")) for table, wanted in columns.items()}


def kill_updates(work, upstream, models, kills, rng):
    place = Place(work, "older", upstream, models)
    server = Server(place, work / "older.log")
    versions = [int(path.stem) for path in (ROOT / "tests/fixtures/state").glob("*.sql")]
    for _ in range(kills):
        before = older_state(place.state, rng.choice(versions))
        server.start(wait=False)
        time.sleep(rng.uniform(0, 0.12))
        server.kill()
        server.start()
        server.kill()
        connection = database(place.state)
        after = rows_of(connection)
        for table, rows in before.items():
            check(rows <= after[table], f"{table} of an older state are missing", list(rows - after[table])[:3])
        connection.close()
    return 2 * kills


def kill_serve(work, upstream, models, kills, rng):
    place = Place(work, "data", upstream, models)
    server = Server(place, work / "serve.log")
    server.start()
    first = time.time()
    load = Load(server.port, 4, rng)
    moments = collections.Counter()
    for n in range(kills):
        moment = rng.choice(["start", "cycle", "any", "any"])
        moments[moment] += 1
        if moment == "start":
            server.kill()
            server.start(wait=False)
            time.sleep(rng.uniform(0, 0.15))
        else:
            time.sleep(rng.uniform(0, 0.8))
            if moment == "cycle":
                time.sleep(1 - time.time() % 1 + rng.uniform(0, 0.08))
        server.kill()
        if n % 10 == 0:
            check_copy(place.state, work)
        server.start()
    kills += moments["start"]
    load.end()
    # The failures that go on have ended, and what the cycles know of them is written.
    quiet = time.time() + 2
    while server.metric("forewarn_cycle_last_success_timestamp_seconds") < quiet:
        time.sleep(0.2)

    # What is known, sent again, is known.
    before = {result: server.metric(f'forewarn_webhook_alerts_total{{result="{result}"}}') for result in ("stored", "duplicate")}
    again = [alerts for alerts in load.known if all(load.acknowledged.get((a["fingerprint"], a["startsAt"]), 0) & FIRING for a in alerts)][:50]
    for alerts in again:
        load.deliver(alerts)
    repeated = sum(map(len, again))
    check(server.metric('forewarn_webhook_alerts_total{result="stored"}') == before["stored"], "what is known is stored again")
    check(server.metric('forewarn_webhook_alerts_total{result="duplicate"}') == before["duplicate"] + repeated, "repeated alerts are not all duplicates")

    # As a cron job would: read beside the writer, and learned from.
    text = place.ok(f"train --start 40m --out {work / 'beside'}")
    check("webhook " in text.partition("by source:")[2].partition("\n")[0], "train beside serve has no incident of the webhook", text)

    shown = [(a["labels"]["id"], a["starts_at"]) for a in server.json("/api/v1/alerts")["alerts"]]
    check(len(shown) == len(set(shown)), "/api/v1/alerts shows an alert twice")
    incidents = server.json("/api/v1/incidents")["incidents"]
    scoreboard = server.json("/api/v1/scoreboard")
    server.kill()

    connection = database(place.state)
    rows = {(fingerprint, start): (statuses, end) for fingerprint, start, statuses, end in connection.execute("SELECT fingerprint, starts_at, statuses, ends_at FROM alerts")}
    acknowledged = {(fingerprint, millis(start)): status for (fingerprint, start), status in load.acknowledged.items()}
    sent = {(fingerprint, millis(start)): status for (fingerprint, start), status in load.sent.items()}
    for key, status in acknowledged.items():
        statuses, end = rows.get(key, (0, None))
        check(statuses & status == status, "acknowledged and missing", (key, status, statuses))
        check(end is not None or not status & RESOLVED, "resolved and still open", key)
    for key, (statuses, _) in rows.items():
        check(statuses & sent.get(key, 0) == statuses, "stored and never sent", key)
    check(rows.keys() >= {(k, millis(s)) for k, s in load.acknowledged}, "rows are missing")
    distinct = sum(status.bit_count() for status in acknowledged.values())
    check(load.stored <= distinct, "the answers counted alerts twice", (load.stored, distinct))

    # Every failure is one incident.
    spells = collections.defaultdict(list)
    for incident in incidents:
        start, end = millis(incident["start"]) // 1000, incident["end"] and millis(incident["end"]) // 1000
        spells[incident["target"]].append((start, end or 2**40))
    for target, found in spells.items():
        found.sort()
        for (start, end), (later, _) in zip(found, found[1:]):
            check(later >= end, f"incidents of {target} overlap", (start, end, later))
    judged = 0
    for target in TARGETS:
        expected = {failure(target, t) for t in range(int(first) + 2, int(quiet) - 1)}
        expected = {(start, end) for start, end in expected if first + 2 < start and end < quiet - 2}
        missing, starts = expected - set(spells[target]), [start for start, _ in spells[target]]
        check(not missing, f"failures of {target} that are no incident", (sorted(missing), spells[target]))
        check(len(starts) == len(set(starts)), f"incidents of {target} are there twice")
        judged += len(expected)
    for start, end in load.spells:
        over = [(s, e) for s, e in spells[HOOK] if s < end and e > math.ceil(start)]
        check(len(over) == 1, "a failure told by webhook is not one incident", ((start, end), over))

    outcomes = dict(connection.execute("SELECT outcome, count(*) FROM alarms WHERE outcome IS NOT NULL GROUP BY outcome"))
    counted = {name: scoreboard[name] for name in ("right", "early", "false")}
    check(counted == {name: outcomes.get(name, 0) for name in counted}, "the scoreboard does not count the alarms that are stored", (counted, outcomes))
    open_for_long = connection.execute("SELECT count(*) FROM alarms WHERE outcome IS NULL AND covers_until < ?", ((quiet - 30) * 1000,)).fetchone()[0]
    check(open_for_long == 0, "alarms are not judged", open_for_long)
    check(counted["right"], "no alarm to see anything by", counted)
    connection.close()
    print(f"ok    serve: {kills} kills ({dict(moments)}), {len(load.acknowledged)} alerts acknowledged in {load.answers[200]} deliveries, "
          f"{judged} failures by query, {len(load.spells)} by webhook, alarms {outcomes}", flush=True)


def fill(work, upstream, models, rng):
    place = Place(work, "full", upstream, models)
    server = Server(place, work / "full.log")
    server.start()
    load = Load(server.port, 2, rng)
    while load.answers[200] < 50:
        time.sleep(0.05)
    size = max(path.stat().st_size for path in place.state.iterdir())
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    while load.answers[503] < 20:
        check(server.process.poll() is None, "forewarn ended on a full disk", server.text())
        time.sleep(0.05)
    cycles = server.metric("forewarn_cycles_total")
    while server.metric("forewarn_cycles_total") < cycles + 3:
        check(time.monotonic() < server.began + 120, "no cycles on a full disk", server.text())
        time.sleep(0.2)
    status, text = server.get("/-/healthy")
    check(status == 200, "/-/healthy on a full disk", text)
    check(server.metric("forewarn_prometheus_up") == 1 and server.metric("forewarn_targets") == 7, "targets on a full disk")
    check(server.metric("forewarn_state_write_failures_total") >= 20, "write failures are not counted")
    check("check that the disk has space" in server.text(), "the log does not say that the disk is full", server.text())
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    good = load.answers[200]
    while load.answers[200] < good + 50:
        check(time.monotonic() < server.began + 120, "it does not heal", server.text())
        time.sleep(0.05)
    load.end()
    server.process.kill()
    server.process.wait()
    connection = database(place.state)
    rows = dict(connection.execute("SELECT fingerprint, statuses FROM alerts"))
    for (fingerprint, _), status in load.acknowledged.items():
        check(rows.get(fingerprint, 0) & status == status, "acknowledged and missing", fingerprint)
    print(f"ok    full disk: {load.answers[503]} deliveries answered 503, all of them stored later, {len(rows)} alerts", flush=True)


def hidden(models):
    return [name for name in os.listdir(models) if name.startswith(".") and name != ".lock"]


def kill_command(place, words, seconds, rng):
    """Runs a command and kills it: at any time, or just when it writes. Whether it was killed before it ended."""
    with tempfile.TemporaryFile() as log:
        process = place.spawn(words, log)
        began = time.monotonic()
        if rng.random() < 0.4:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, seconds))
        else:
            for _ in range(rng.choice([1, 1, 2, 3])):
                before = set(hidden(place.models))
                while process.poll() is None and set(hidden(place.models)) == before:
                    check(time.monotonic() < began + 120, f"forewarn {words} does not end")
            time.sleep(rng.choice([0, rng.uniform(0, 0.002), rng.uniform(0, 0.03)]))
        process.kill()
        return process.wait() != 0


def served(place):
    """The name that `current` holds; the model is whole."""
    place.ok("check model")
    return (place.models / "current").read_text().strip()


def kill_train(work, upstream, kills, rng):
    place = Place(work, "train", upstream, work / "trained")
    end = int(time.time())
    fixed = f"train --start {end - 2400} --end {end}"
    began = time.monotonic()
    place.ok(fixed)
    seconds = time.monotonic() - began
    first = served(place)
    killed, left = 0, 0
    for _ in range(kills):
        # The same range gives the same model, which replaces the served one; another range gives another.
        words = rng.choice([fixed, "train --start 40m"])
        while not kill_command(place, words, seconds, rng):
            pass
        killed += 1
        left = max(left, len(hidden(place.models)))
        served(place)
    place.ok(fixed)
    check(served(place) == first, "the last train is not served", served(place))
    for name in hidden(place.models):
        os.utime(place.models / name, (0, 0))
    place.ok("train --start 40m")
    check(not hidden(place.models), "leftovers stay for ever", hidden(place.models))
    check(served(place) != first, "the last train is not served")
    print(f"ok    train: {killed} kills of {seconds:.1f} s, at most {left} leftovers at a time", flush=True)
    return place


def kill_promote(place, kills, rng):
    place.ok("train --start 39m")
    names = {row["name"] for row in json.loads(place.ok("model list --output json"))}
    place.ok("model rollback")
    began = time.monotonic()
    place.ok("model rollback")
    seconds = time.monotonic() - began
    killed = collections.Counter()
    for word in ("promote", "rollback"):
        while killed[word] < kills:
            before = served(place)
            words = f"model promote {rng.choice(sorted(names - {before}))}" if word == "promote" else "model rollback"
            killed[word] += kill_command(place, words, seconds, rng)
            check(served(place) in names, f"after {words} nothing is served")
            if word == "rollback":
                # The killed one has happened or not; the next one works.
                now = served(place)
                place.ok("model rollback")
                check(served(place) != now, "a rollback after a killed one changes nothing")
    print(f"ok    model promote and rollback: {dict(killed)} kills of {seconds:.2f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25, help="of serve; a fifth as many of its updates, a quarter as many of each command")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=["serve", "full", "train"], action="append", help="default: all")
    parser.add_argument("--keep", action="store_true", help="leave the files where they are")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    rng = random.Random(seed)
    work = pathlib.Path(tempfile.mkdtemp(prefix="forewarn-crash."))
    upstream = start_upstream()
    parts = args.only or ["serve", "full", "train"]
    commands = max(5, args.kills // 4)
    try:
        place = Place(work, "train", upstream, work / "models")
        place.ok("train --start 40m")
        if "serve" in parts:
            kill_serve(work, upstream, place.models, args.kills, rng)
            updates = kill_updates(work, upstream, place.models, max(5, args.kills // 5), rng)
            print(f"ok    updates of older states: {updates} kills", flush=True)
        if "full" in parts:
            fill(work, upstream, place.models, rng)
        if "train" in parts:
            trained = kill_train(work, upstream, commands, rng)
            kill_promote(trained, commands, rng)
    except BaseException as problem:
        if not isinstance(problem, SystemExit):
            traceback.print_exc()
        for server in STARTED:
            server.process.kill()
        print(f"files: {work}", file=sys.stderr, flush=True)
        # Not even the threads that still deliver hold it up.
        os._exit(1)
    if args.keep:
        print(f"files: {work}")
    else:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
