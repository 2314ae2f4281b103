"""The measuring behind cycle.sh: starts the upstream and the cycles, scrapes, asks for predictions beside both, prints tables."""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from requests import LUA, ask, binary, cpu, load, rows

UPSTREAM = 28420
PORT = 28421


def until_open(port, process):
    while True:
        try:
            return ask(port, "GET", "/-/healthy")
        except OSError:
            if process.poll() is not None:
                raise SystemExit(f"{process.args[0]} ended at once")
            time.sleep(0.05)


def scrape(pid, count):
    """CPU and wall time of one scrape in ms, and its size in MB."""
    ask(PORT, "GET", "/metrics")
    before, walls, size = cpu(pid), [], 0
    for _ in range(count):
        began = time.perf_counter()
        size = len(ask(PORT, "GET", "/metrics")[1])
        walls.append(time.perf_counter() - began)
    return (cpu(pid) - before) / count * 1e3, statistics.median(walls) * 1e3, size / 1e6


def p99(work, pid, bodies, options):
    runs = [load(work, PORT, pid, "/predict", bodies, 8, options.seconds)["p99"] for _ in range(options.rounds)]
    return statistics.median(runs)


def measure(work, targets, cycles, options):
    bodies = work / "single"
    environment = {**os.environ, "PORT": str(UPSTREAM), "TARGETS": str(targets)}
    upstream = subprocess.Popen([binary("examples/upstream")], env=environment)
    until_open(UPSTREAM, upstream)
    arguments = [str(UPSTREAM), str(PORT), str(work / "models"), str(cycles)]
    server = subprocess.Popen([binary("examples/cycle"), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        seen = json.loads(server.stdout.readline())
        one, scraped = seen["cycle"], scrape(server.pid, 20 if targets <= 10_000 else 10)
        alone = p99(work, server.pid, bodies, options)
        ended = threading.Event()

        def scrapes():
            while not ended.wait(1):
                ask(PORT, "GET", "/metrics")

        scraper = threading.Thread(target=scrapes)
        scraper.start()
        scraping = p99(work, server.pid, bodies, options)
        ended.set()
        scraper.join()
        server.stdin.write("\n")
        server.stdin.flush()
        cycling = p99(work, server.pid, bodies, options)
        memory, backfill = seen["rss_mib"], seen["backfill"]
        print(
            f"| {targets:,} | {seen['scored']:,} | {one['cpu_ms']:.1f} | {one['cpu_ms'] / targets * 1000:.1f} | {one['wall_ms']:.0f} "
            f"| {scraped[0]:.1f} | {scraped[1]:.0f} | {scraped[2]:.1f} | {alone:,.0f} | {scraping:,.0f} | {cycling:,.0f} "
            f"| {memory['now']:.0f} | {memory['peak']:.0f} | {(memory['now'] - memory['idle']) * 1024 / targets:.1f} "
            f"| {backfill['cpu_s']:.1f} | {backfill['wall_s']:.1f} |", flush=True)
    finally:
        server.kill()
        upstream.kill()
        server.wait()
        upstream.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--cycles", type=int, help="cycles to take the mean of; by default 50 to 10, the fewer the larger the fleet")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--model", type=Path, default=Path("models/default"))
    options = parser.parse_args()
    print(
        "| targets | scored | cycle: CPU ms | CPU ms per 1,000 targets | wall ms | scrape: CPU ms | wall ms | MB "
        "| p99 of /predict µs: alone | while scraped | while cycling | RSS MiB | peak | KiB per target "
        "| start: CPU s | wall s |")
    print("|" + "---|" * 16, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "models").mkdir()
        (work / "models/default").symlink_to(options.model.resolve())
        (work / "post.lua").write_text(LUA)
        (work / "single").write_text("".join(json.dumps(row) + "\n" for row in rows(1, 64)))
        for targets in options.targets:
            measure(work, targets, options.cycles or max(10, min(50, 100_000 // targets)), options)


if __name__ == "__main__":
    main()
