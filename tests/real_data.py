"""The data side of tests/real_data.sh: SMD as OpenMetrics, and the configs that read it."""

import argparse
import csv
import gzip
import sys

# Signals of the Python service and what of SMD comes nearest; nothing comes near network_latency_ms.
MAPPED = {
    "cpu_usage": ("percent", "100 * smd_cpu_r"),
    "memory_usage": ("percent", "100 * smd_mem_u"),
    "disk_usage": ("percent", "100 * smd_disk_u"),
    "error_count": ("count", "smd_retransegs + smd_tcp_timeouts"),
    "response_time_ms": ("milliseconds", "1000 * smd_disk_svc"),
    "active_connections": ("count", "1000 * smd_curr_estab"),
}
KEYS = ("timestamp", "target")


def read(path):
    with gzip.open(path, "rt") as file:
        rows = csv.reader(file)
        header = next(rows)
        columns = list(zip(*rows))
    if tuple(header[:2]) != KEYS or header[-1] != "failure":
        sys.exit(f"{path}: the columns are {header[:2]} … {header[-1]!r}, not timestamp, target, … failure")
    return header, columns


def openmetrics(args):
    """Writes every column as one metric, smd_<column>{instance=<target>}."""
    header, columns = read(args.csv)
    labels = [f'{{instance="{target}"}} ' for target in columns[1]]
    for name, values in zip(header[2:], columns[2:]):
        metric = f"smd_{name}"
        sys.stdout.write(f"# TYPE {metric} gauge\n")
        sys.stdout.writelines(
            f"{metric}{label}{value} {time}\n" for label, value, time in zip(labels, values, columns[0])
        )
    sys.stdout.write("# EOF\n")


def config(args):
    """Writes a config: all columns as signals of their own, or the mapped ones."""
    header, _ = read(args.csv)
    if args.signals == "all":
        signals = {name: ("ratio", f"smd_{name}") for name in header[2:-1]}
    else:
        signals = MAPPED
    print("prometheus: {url: '${FOREWARN_PROMETHEUS_URL}'}")
    print("targets: {label: instance, extra_labels: []}")
    print("signals:")
    for name, (unit, query) in signals.items():
        print(f"  {name}: {{unit: {unit}, query: '{query}'}}")
    print(f"horizon: {args.horizon}m")
    # Windows closer than 30 minutes are one, and what is judged is the page, at once.
    print("failure: {queries: ['smd_failure == 1'], merge_gap: 30m}")
    print("alerting: {for: 0s, false_alarms_per_week: %d}" % (7 * len(set(read(args.csv)[1][1]))))


def span(args):
    """Prints first and last time and the number of targets."""
    _, columns = read(args.csv)
    times = [int(time) for time in columns[0]]
    print(min(times), max(times), len(set(columns[1])))


parser = argparse.ArgumentParser(description=__doc__)
commands = parser.add_subparsers(required=True)
for run in (openmetrics, config, span):
    command = commands.add_parser(run.__name__, help=run.__doc__)
    command.set_defaults(run=run)
    command.add_argument("csv")
    if run is config:
        command.add_argument("--signals", choices=["all", "mapped"], required=True)
        command.add_argument("--horizon", type=int, required=True)
chosen = parser.parse_args()
chosen.run(chosen)
