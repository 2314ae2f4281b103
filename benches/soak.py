"""The measuring behind soak.sh."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cycle import UPSTREAM, PORT, until_open
from requests import ask, binary, cpu

SIGNALS = ("cpu_usage", "memory_usage", "disk_usage", "network_latency_ms", "error_count", "response_time_ms", "active_connections")
BODY = json.dumps({name: 40 for name in SIGNALS})


def config(work):
    return json.dumps({
        "prometheus": {"url": f"http://127.0.0.1:{UPSTREAM}"},
        "signals": {name: {"query": name} for name in SIGNALS},
        "failure": {"queries": ["down"]},
        "model": {"path": str(Path("models").absolute())},
        "state": {"path": str(work / "state")},
        "api": {"listen": f"127.0.0.1:{PORT}"},
    })


def look(pid, text):
    """What the process takes, and what /metrics says."""
    status = Path(f"/proc/{pid}/status").read_text().split()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("forewarn_") and "{" not in line)
    return {
        "rss": int(status[status.index("VmRSS:") + 1]) / 1024,
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "cycles": float(values["forewarn_cycles_total"]),
        "missed": float(values["forewarn_cycles_missed_total"]),
        "scored": sum(line.startswith("failure_probability{") for line in text.splitlines()),
        "age": time.time() - float(values.get("forewarn_cycle_last_success_timestamp_seconds", 0)),
    }


def soak(server, options):
    until_open(PORT, server)
    while ask(PORT, "GET", "/-/ready")[0] != 200:
        time.sleep(1)
    first = look(server.pid, ask(PORT, "GET", "/metrics")[1].decode())
    began, seen, problems = time.monotonic(), [], []
    while time.monotonic() < began + 60 * options.minutes:
        for _ in range(15):
            if ask(PORT, "POST", "/predict", BODY)[0] != 200:
                problems.append("/predict failed")
            time.sleep(1)
        seen.append(look(server.pid, ask(PORT, "GET", "/metrics")[1].decode()))
        if len(seen) % 8 == 0:
            print(f"{(time.monotonic() - began) / 60:.0f} min: " + ", ".join(f"{what} {value:.0f}" for what, value in seen[-1].items()), flush=True)
    last = seen[-1]
    middle, end = (statistics.median(s["rss"] for s in part) for part in (seen[len(seen) // 3 : 2 * len(seen) // 3], seen[-len(seen) // 6 :]))
    if last["scored"] != options.targets:
        problems.append(f"{last['scored']} of {options.targets} targets have a gauge")
    missed = last["missed"] - first["missed"]
    if missed > 1 or last["age"] > 120:
        problems.append(f"{missed:.0f} cycles missed, the last success {last['age']:.0f} s ago")
    if end > 1.05 * middle:
        problems.append("memory grew")
    print(f"{options.targets} targets, {options.minutes} min, {last['cycles']:.0f} cycles, {missed:.0f} missed; RSS {middle:.0f} MiB in the middle "
          f"third, {end:.0f} at the end, {max(s['rss'] for s in seen):.0f} at most; {cpu(server.pid):.0f} s of CPU")
    return problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="forewarn-soak.") as work:
        work = Path(work)
        (work / "config.yaml").write_text(config(work))
        environment = {**os.environ, "PORT": str(UPSTREAM), "TARGETS": str(options.targets)}
        upstream = subprocess.Popen([binary("examples/upstream")], env=environment)
        until_open(UPSTREAM, upstream)
        server = subprocess.Popen([binary("forewarn"), "serve", "--config.file", str(work / "config.yaml"), "--log.level", "warn"])
        try:
            problems = soak(server, options)
        finally:
            server.terminate()
            upstream.kill()
            server.wait(60)
    for problem in problems:
        print(f"FAIL  {problem}")
    sys.exit(1 if problems else 0)


main()
