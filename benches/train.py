"""The measuring behind train.sh: the answers of Prometheus alone, then train and backtest through them, as JSON tells it."""

import json
import os
import subprocess
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

from requests import cpu

STEP = 60
# Points in one request, as forewarn asks for them.
PIECE = 10_000


def alone(url, pid, queries, start, end):
    """Seconds and CPU seconds in which Prometheus answers, four requests at a time, to curl that keeps nothing; and bytes."""
    forms = [
        urllib.parse.urlencode({"query": query, "start": first, "end": min(end, first + STEP * (PIECE - 1)), "step": STEP})
        for query in queries for first in range(start, end + 1, STEP * PIECE)]

    def ask(form):
        command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", "--data", form, f"{url}/api/v1/query_range"]
        code, size = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        if code != "200":
            sys.exit(f"Prometheus answers {code} to {form}")
        return int(size)

    began, before = time.monotonic(), cpu(pid)
    with ThreadPoolExecutor(4) as pool:
        size = sum(pool.map(ask, forms))
    return time.monotonic() - began, cpu(pid) - before, size


def run(command, server):
    """The report of a command, with what it took."""
    before = cpu(server)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr)
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed")
    report = json.loads(text)
    spent = usage.ru_utime + usage.ru_stime
    print(f"{command[1]}: {report['rows']:,} rows, {report['incidents']} incidents; {report['timing']}; "
          f"CPU {spent:.1f} s, of Prometheus {cpu(server) - before:.1f} s; peak memory {usage.ru_maxrss / 1024:.0f} MiB", flush=True)


def main():
    forewarn, url, pid, start, end, model, queries = sys.argv[1:]
    start, end = int(start), int(end)
    # With the day before that the baselines need.
    seconds, spent, size = alone(url, int(pid), json.loads(queries), start - 86_400, end)
    print(f"Prometheus alone: {seconds:.1f} s, CPU {spent:.1f} s, {size / 1e6:.0f} MB of JSON", flush=True)
    span = ["--config.file", "deploy/demo/config.yaml", "--start", str(start), "--end", str(end), "--output", "json"]
    run([forewarn, "train", *span, "--origin", "simulated", "--out", model], int(pid))
    run([forewarn, "backtest", *span, "--allow-overlap", "--model", model], int(pid))


main()
