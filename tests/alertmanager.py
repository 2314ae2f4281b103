"""Alerts given to real Alertmanagers, their webhooks to forewarn, and what its API and metrics say then.

    alertmanager.py ALERTMANAGER
"""

import contextlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

from crash import HOOK, Place, Server, Upstream, check, fail, free_port, rfc3339, start_upstream

CONFIG = """
route:
  receiver: forewarn
  group_by: [alertname]
  group_wait: 1s
  group_interval: 1s
  repeat_interval: 1h
  routes:
    - {{matchers: ['case="repeated"'], receiver: forewarn, repeat_interval: 1s}}
    - {{matchers: ['case="truncated"'], receiver: short}}
receivers:
  - name: forewarn
    webhook_configs: [{{url: "http://127.0.0.1:{port}/webhook/alertmanager", send_resolved: true}}]
  - name: short
    webhook_configs: [{{url: "http://127.0.0.1:{port}/webhook/alertmanager", send_resolved: true, max_alerts: 2}}]
"""


class Alertmanager:
    def __init__(self, binary, work, name, forewarn_port):
        self.dir = work / name
        self.dir.mkdir()
        (self.dir / "alertmanager.yml").write_text(CONFIG.format(port=forewarn_port))
        self.binary, self.port, self.cluster_port = binary, free_port(), free_port()
        self.process = None

    def start(self, peer=None, cluster=False):
        """A member of a cluster, alone in it at first; or no member."""
        words = ["--cluster.listen-address="]
        if cluster:
            words = [f"--cluster.listen-address=127.0.0.1:{self.cluster_port}", "--cluster.gossip-interval=50ms"]
        if peer:
            words.append(f"--cluster.peer=127.0.0.1:{peer.cluster_port}")
        log = open(self.dir / "log", "a")
        self.process = subprocess.Popen(
            [self.binary, f"--config.file={self.dir}/alertmanager.yml", f"--storage.path={self.dir}/data",
             f"--web.listen-address=127.0.0.1:{self.port}", *words], stdout=log, stderr=log)
        until("Alertmanager is ready", lambda: self.get("/-/ready") is not None)

    def get(self, route):
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{route}", timeout=5).read().decode()

    def failed(self):
        """Deliveries that failed."""
        lines = [line for line in self.get("/metrics").splitlines() if "requests_failed_total" in line and 'integration="webhook"' in line]
        return sum(float(line.split()[-1]) for line in lines)

    def post(self, body, what="alerts"):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v2/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=10).read() or "null")

    def silence(self, **labels):
        matchers = [{"name": name, "value": value, "isRegex": False} for name, value in labels.items()]
        times = {"startsAt": rfc3339(time.time()), "endsAt": rfc3339(time.time() + 600)}
        return self.post({"matchers": matchers, "createdBy": "ann", "comment": "looking into it"} | times, "silences")["silenceID"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


def until(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            fail(f"not within {seconds} s: {what}")
        time.sleep(0.1)


def alert(name, number=0, ended=False, **labels):
    # Of one name all begin at once and just now: a group waits for its others only then.
    times = {"startsAt": rfc3339(STARTS.setdefault(name, time.time()))}
    if ended:
        times["endsAt"] = rfc3339(time.time())
    labels = {"alertname": name, "id": str(number), "instance": "nowhere"} | labels
    return {"labels": labels, "annotations": {"summary": 'ünïcode → "quoted"'}} | times


STARTS = {}


class World:
    def __init__(self, binary, work):
        upstream = start_upstream()
        Upstream.rules = [{"type": "alerting", "name": "TheirPrediction", "query": "max by (instance) (failure_probability) > 0.9"}]
        self.place = Place(work, "data", upstream, work / "models")
        self.place.ok("train --start 40m")
        self.forewarn = Server(self.place, work / "forewarn.log")
        self.one, self.two = (Alertmanager(binary, work, name, self.forewarn.port) for name in ("one", "two"))
        # Its silences are read; it is not there at first.
        with self.place.config.open("a") as config:
            config.write(f'alertmanager: {{url: "http://127.0.0.1:{self.two.port}"}}\n')
        self.forewarn.start()

    def alerts(self, name):
        return [a for a in self.forewarn.json("/api/v1/alerts")["alerts"] if a["labels"]["alertname"] == name]

    def open(self, name):
        """How many are stored and how many of them still fire."""
        found = self.alerts(name)
        return len(found), sum(a["ends_at"] is None for a in found)

    def count(self, result):
        return self.forewarn.metric(f'forewarn_webhook_alerts_total{{result="{result}"}}')

    def stay(self, what, name, expected):
        """Nothing more comes."""
        for _ in range(20):
            check(self.open(name) == expected, what, self.open(name))
            time.sleep(0.1)

    def until_open(self, what, name, *expected):
        until(f"{what}: {expected} of {name}", lambda: self.open(name) == expected)

    def cycles(self, number):
        last = self.forewarn.metric("forewarn_cycles_total")
        until("cycles", lambda: self.forewarn.metric("forewarn_cycles_total") >= last + number)


def run(world):
    one, two, forewarn = world.one, world.two, world.forewarn
    one.start()
    version = json.loads(one.get("/api/v2/status"))["versionInfo"]["version"]

    one.post([alert("Firing")])
    world.until_open("firing", "Firing", 1, 1)
    one.post([alert("Firing", ended=True)])
    world.until_open("resolved", "Firing", 1, 0)
    check(world.alerts("Firing")[0]["starts_at"][:19] == rfc3339(STARTS["Firing"])[:19], "start of a resolved alert")

    one.post([alert("Mixed", n) for n in range(2)])
    world.until_open("firing", "Mixed", 2, 2)
    one.post([alert("Mixed", 0, ended=True)])
    world.until_open("one of two resolved", "Mixed", 2, 1)

    one.post([alert("Repeated", case="repeated")])
    world.until_open("firing", "Repeated", 1, 1)
    stored, duplicate = world.count("stored"), world.count("duplicate")
    until("repeated deliveries", lambda: world.count("duplicate") >= duplicate + 2)
    check(world.count("stored") == stored and world.open("Repeated") == (1, 1), "a repeated alert is stored again")
    one.post([alert("Repeated", case="repeated", ended=True)])
    world.until_open("resolved", "Repeated", 1, 0)

    one.post([alert("Truncated", n, case="truncated") for n in range(5)])
    world.until_open("two of five", "Truncated", 2, 2)
    until("what is left out is counted", lambda: forewarn.metric("forewarn_webhook_truncated_alerts_total") == 3)

    one.post([alert("Many", n) for n in range(500)])
    world.until_open("500 at once", "Many", 500, 500)
    one.post([alert("Many", n, ended=True) for n in range(500)])
    world.until_open("500 resolved", "Many", 500, 0)

    # forewarn is away for a while.
    forewarn.process.send_signal(signal.SIGTERM)
    check(forewarn.process.wait(20) == 0, "SIGTERM")
    one.post([alert("Away", n) for n in range(3)] + [alert("Mixed", 1, ended=True)])
    failed = one.failed()
    until("Alertmanager has tried", lambda: one.failed() > failed)
    forewarn.start()
    world.until_open("sent again", "Away", 3, 3)
    world.until_open("its end, sent again", "Mixed", 2, 0)

    # Alertmanager is away for a while; who raises alerts gives them again.
    one.stop()
    one.start()
    one.post([alert("Away", n) for n in range(3)] + [alert("After")])
    world.until_open("after a restart", "After", 1, 1)
    world.stay("after a restart of Alertmanager alerts are stored twice", "Away", (3, 3))
    one.post([alert("Away", n, ended=True) for n in range(3)])
    world.until_open("resolved after a restart", "Away", 3, 0)

    # Two that do not know of each other, so that both send.
    two.start()
    duplicate = world.count("duplicate")
    for alertmanager in (one, two):
        alertmanager.post([alert("Both", n) for n in range(20)])
    until("both have sent", lambda: world.count("duplicate") >= duplicate + 20)
    check(world.open("Both") == (20, 20), "what two Alertmanagers send is not stored once", world.open("Both"))
    one.post([alert("Both", n, ended=True) for n in range(20)])
    world.until_open("resolved by one", "Both", 20, 0)
    two.post([alert("Both", n, ended=True) for n in range(20)])
    world.stay("resolved by both", "Both", (20, 0))
    one.stop()
    two.stop()

    # A cluster, of which one is lost.
    one.start(cluster=True)
    two.start(cluster=True, peer=one)
    until("a cluster", lambda: len(json.loads(two.get("/api/v2/status"))["cluster"].get("peers", [])) == 2)
    for alertmanager in (one, two):
        alertmanager.post([alert("Cluster", n) for n in range(20)])
    world.until_open("from a cluster", "Cluster", 20, 20)
    one.process.kill()
    one.process.wait()
    two.post([alert("Cluster", n, ended=True) for n in range(20)])
    world.until_open("from what is left of a cluster", "Cluster", 20, 0)

    # Our own alerts are no failures; another one is.
    own = world.count("own")
    two.post([
        alert("HighFailureProbability", forewarn="true", severity="critical", instance=HOOK, target=HOOK),
        alert("TheirPrediction", severity="critical", instance=HOOK),
    ])
    world.until_open("our own", "HighFailureProbability", 1, 1)
    world.until_open("that of a rule that reads our predictions", "TheirPrediction", 1, 1)
    until("our own are counted", lambda: world.count("own") == own + 2)
    check(all(a["own"] for name in ("HighFailureProbability", "TheirPrediction") for a in world.alerts(name)), "own")
    world.cycles(3)
    of_hook = lambda: [i for i in forewarn.json("/api/v1/incidents")["incidents"] if i["target"] == HOOK]
    check(of_hook() == [], "our own alerts became incidents", of_hook())

    # Who silences a warning of ours about a target acts on it; another silence says nothing.
    two.silence(alertname="TheirPrediction")
    silence = two.silence(target=HOOK)
    actions = lambda: [(a["target"], a["id"]) for a in forewarn.json("/api/v1/actions")["actions"]]
    until("an action", lambda: actions() == [(HOOK, f"silence/{silence}")])
    world.cycles(3)
    check(len(actions()) == 1 and forewarn.metric('forewarn_actions_total{source="silence"}') == 1, "a silence is one action", actions())
    two.post([alert("DiskFull", severity="critical", instance=HOOK)])
    until("an incident", lambda: [i["source"] for i in of_hook()] == ["webhook"])

    check(world.count("malformed") == 0, "malformed deliveries")
    print(f"ok    Alertmanager {version}: {world.count('stored'):.0f} stored and {world.count('duplicate'):.0f} known since forewarn's restart")


def main():
    work = pathlib.Path(tempfile.mkdtemp(prefix="forewarn-alertmanager."))
    world = World(sys.argv[1], work)
    try:
        run(world)
    except BaseException:
        print(f"files: {work}", file=sys.stderr)
        raise
    finally:
        for process in (world.one.process, world.two.process, world.forewarn.process):
            if process and process.poll() is None:
                process.kill()
    shutil.rmtree(work)


main()
