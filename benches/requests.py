"""The measuring behind requests.sh: starts the servers, drives them with wrk, prints tables."""

import argparse
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PORT = 28410
SIGNALS = ["cpu_usage", "memory_usage", "disk_usage", "network_latency_ms", "error_count", "response_time_ms", "active_connections"]
LUA = """
local bodies, path, requests, i = {}, os.getenv("REQUEST_PATH"), {}, 0
for line in io.lines(os.getenv("REQUEST_BODIES")) do bodies[#bodies + 1] = line end
function init()
  for k, body in ipairs(bodies) do
    requests[k] = wrk.format("POST", path, {["Content-Type"] = "application/json"}, body)
  end
end
function request()
  i = i % #requests + 1
  return requests[i]
end
function done(summary, latency)
  local e = summary.errors
  print(string.format("JSON [%d, %d, %d, %d, %d]", summary.requests, summary.duration, latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
"""


def rows(seed, count):
    """Rows as a fleet sends them: one in ten of a machine in trouble."""
    draw = random.Random(seed)
    for _ in range(count):
        bad = draw.random() < 0.1
        yield {
            "cpu_usage": round(min(99.9, draw.gauss(75 if bad else 35, 12) % 100), 2),
            "memory_usage": round(min(99.9, draw.gauss(85 if bad else 55, 10) % 100), 2),
            "disk_usage": round(draw.uniform(20, 80), 2),
            "network_latency_ms": round(draw.lognormvariate(4.5 if bad else 3, 0.4), 2),
            "error_count": int(draw.expovariate(0.1 if bad else 2)),
            "response_time_ms": round(draw.lognormvariate(6.8 if bad else 5, 0.4), 2),
            "active_connections": int(draw.lognormvariate(4.6, 0.5)),
        }


def cpu(pid):
    """User and system seconds of a process and its children so far."""
    total = 0
    for each in [pid, *children(pid)]:
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += [int(child), *children(int(child))]
    return found


def rss(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def ask(port, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class Forewarn:
    def __init__(self, work, models, port, serve):
        self.port = port
        config = work / f"{serve}.json"
        config.write_text(json.dumps({
            "prometheus": {"url": "http://127.0.0.1:9"},
            "signals": {name: {"query": name} for name in SIGNALS},
            "failure": {"queries": ["up == 0"]},
            "state": {"enabled": False},
            "model": {"path": str(models), "serve": serve},
        }))
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("API_", "MODEL_", "DATA_", "LOG_"))}
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [binary("forewarn"), "serve", "--config.file", config, "--web.listen-address", f"127.0.0.1:{port}"],
            stderr=(work / "log").open("a"), env=environment, cwd=work)
        self.pid = self.process.pid

    def until_ready(self, body):
        """Seconds from the start of the process to its first answer."""
        while True:
            try:
                status, text = ask(self.port, "POST", "/predict", body)
                if status == 200:
                    return time.perf_counter() - self.began
                sys.exit(f"forewarn answers {status}: {text.decode()}")
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("forewarn ended at once")
                time.sleep(0.001)

    def stop(self):
        self.process.kill()
        self.process.wait()


def binary(name):
    return Path("target/release").resolve() / name


def load(work, port, pid, path, bodies, connections, seconds):
    """One run of wrk on one thread."""
    environment = {**os.environ, "REQUEST_PATH": path, "REQUEST_BODIES": str(bodies)}
    before = cpu(pid)
    out = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", work / "post.lua", f"http://127.0.0.1:{port}"],
        env=environment, capture_output=True, text=True, check=True).stdout
    spent = cpu(pid) - before
    count, micros, p99, refused, broken = json.loads(out.partition("JSON ")[2])
    return {"rate": count / micros * 1e6, "p99": p99, "cpu": spent / max(count, 1) * 1e6, "refused": refused, "broken": broken}


def compare(work, servers, path, bodies, connections, options, per_row):
    """Servers take turns, so that what else the machine does meets all alike."""
    runs = {name: [] for name in servers}
    for name, (port, pid) in servers.items():
        load(work, port, pid, path, bodies, connections, 1)
    for turn in range(options.rounds):
        order = list(servers)
        for name in order[turn % len(order):] + order[:turn % len(order)]:
            port, pid = servers[name]
            runs[name].append(load(work, port, pid, path, bodies, connections, options.seconds))
    middle = {name: {key: statistics.median(run[key] for run in of) for key in of[0]} for name, of in runs.items()}
    bare = middle["bare"]
    for name, of in middle.items():
        wrong = f"; {of['refused'] + of['broken']:.0f} requests failed" if of["refused"] + of["broken"] else ""
        # Of each round, so that both sides saw the same machine.
        ratio = statistics.median(a["rate"] / b["rate"] for a, b in zip(runs[name], runs["bare"]))
        p99 = statistics.median(a["p99"] / b["p99"] for a, b in zip(runs[name], runs["bare"]))
        rate, cost = of["rate"] * per_row, of["cpu"] / per_row
        print(f"| {connections} | {name} | {rate:,.0f} | {ratio:.2f} | {of['p99']:,.0f} | {p99:.2f} | {cost:.1f} | {of['cpu'] / bare['cpu']:.2f}{wrong} |", flush=True)


def table(what):
    print(f"\n| connections | server | {what}/s | ratio to bare | p99 µs | ratio | server CPU µs/{what[:-1]} | ratio |")
    print("|---|---|---|---|---|---|---|---|", flush=True)


def start_and_memory(work, models, body):
    seconds = []
    for _ in range(11):
        server = Forewarn(work, models, PORT, "ensemble")
        seconds.append(server.until_ready(body))
        server.stop()
    server = Forewarn(work, models, PORT, "ensemble")
    server.until_ready(body)
    time.sleep(3)
    print(f"\nstart to the first answer: median {statistics.median(seconds) * 1e3:.0f} ms, best {min(seconds) * 1e3:.0f} ms")
    print(f"idle memory: {rss(server.pid):.1f} MiB RSS")
    print(f"binary: {binary('forewarn').stat().st_size / 1e6:.1f} MB", flush=True)
    server.stop()


def saturation(work, server, path, bodies, connections, options):
    """/metrics and the probe on connections of their own while wrk asks for all it can get."""
    waits, ended = {"/metrics": [], "/-/healthy": []}, threading.Event()

    def probe():
        while not ended.is_set():
            for route, times in waits.items():
                began = time.perf_counter()
                try:
                    status, _ = ask(server.port, "GET", route)
                except OSError:
                    status = 0
                times.append(time.perf_counter() - began if status == 200 else float("inf"))
            time.sleep(0.05)

    prober = threading.Thread(target=probe)
    prober.start()
    run = load(work, server.port, server.pid, path, bodies, connections, options.seconds)
    ended.set()
    prober.join()
    probes = "; ".join(
        f"{route} median {statistics.median(times) * 1e3:.1f} ms, worst {max(times) * 1e3:.0f} ms of {len(times)}"
        for route, times in waits.items())
    print(f"- {path}, {connections} connections: {run['rate']:,.0f} answers/s, {run['refused']:.0f} of them 503, "
          f"{run['broken']:.0f} broken, p99 {run['p99'] / 1e3:.1f} ms; {probes}; {rss(server.pid):.0f} MiB RSS", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=Path("models/default"))
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL=PID")
    parser.add_argument("--only", action="append", choices=["predict", "batch", "start", "saturation"])
    options = parser.parse_args()
    parts = options.only or ["predict", "batch", "start", "saturation"]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        models = work / "models"
        models.mkdir()
        # What a folder without a promoted model serves.
        (models / "default").symlink_to(options.model.resolve())
        (work / "post.lua").write_text(LUA)
        single, batch = work / "single", work / "batch"
        single.write_text("".join(json.dumps(row) + "\n" for row in rows(1, 64)))
        batch.write_text("".join(json.dumps(list(rows(seed, 1000))) + "\n" for seed in range(2, 6)))
        first = single.read_text().splitlines()[0]

        bare = subprocess.Popen([binary("examples/bare")], env={**os.environ, "PORT": str(PORT + 1)})
        own = {serve: Forewarn(work, models, PORT + 2 + i, serve) for i, serve in enumerate(["ensemble", "logistic_regression"])}
        try:
            for server in own.values():
                server.until_ready(first)
            levels = [json.loads(ask(own["ensemble"].port, "POST", "/predict", row)[1])["failure_risk"] for row in single.read_text().splitlines()]
            print("risk levels of the rows:", {level: levels.count(level) for level in sorted(set(levels))})
            servers = {"bare": (PORT + 1, bare.pid), **{name: (server.port, server.pid) for name, server in own.items()}}
            for peer in options.peer:
                name, url, pid = peer.split("=")
                servers[name] = (int(url.rstrip("/").rpartition(":")[2]), int(pid))
            if "predict" in parts:
                table("requests")
                for connections in [1, 8, 64]:
                    compare(work, servers, "/predict", single, connections, options, 1)
            if "batch" in parts:
                table("rows")
                for connections in [1, 4]:
                    compare(work, servers, "/predict/batch", batch, connections, options, 1000)
            if "saturation" in parts:
                print()
                for path, bodies, connections in [("/predict", single, 64), ("/predict", single, 1000), ("/predict", single, 1060), ("/predict/batch", batch, 64)]:
                    saturation(work, own["ensemble"], path, bodies, connections, options)
            if "start" in parts:
                start_and_memory(work, models, first)
        finally:
            bare.kill()
            for server in own.values():
                server.stop()


if __name__ == "__main__":
    main()
