"""The data side of tests/real_data.sh: SMD as OpenMetrics, the configs that read it, and the table of what came of it."""

import argparse
import csv
import gzip
import json
import pathlib
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
    with gzip.open(args.csv, "rt") as file:
        header = next(csv.reader(file))
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
    # As many as scikit-learn's side gets: all positives, and negatives that make up for those left out.
    # The linear member's solver takes many minutes over hundreds of columns.
    # Its penalty is scikit-learn's.
    print("train: {max_rows: 40000, logistic_regression: {alpha: 1}}")
    print(f"alerting: {{for: 0s, false_alarms_per_week: {7 * args.targets}}}")


def span(args):
    """Prints first and last time and the number of targets."""
    _, columns = read(args.csv)
    times = [int(time) for time in columns[0]]
    print(min(times), max(times), len(set(columns[1])))


MARKS = ("<!-- table: tests/real_data.sh -->\n", "<!-- end of table -->\n")
NAMES = {"all": "38 signals of their own", "mapped": "6 mapped signals"}
# One false alarm per target-day.
BUDGET = "7"


def table(args):
    """Prints, or puts between the marks of a file, what train, backtest and the peers came to."""
    text = "".join(section(args.work, kind, horizon) for kind in args.signals for horizon in args.horizons)
    if args.into is None:
        print(text)
        return
    path = pathlib.Path(args.into)
    before, rest = path.read_text().split(MARKS[0])
    path.write_text(before + MARKS[0] + text + MARKS[1] + rest.split(MARKS[1])[1])


def section(work, kind, horizon):
    report, backtest, peers = (
        json.loads(pathlib.Path(f"{work}/{kind}-{horizon}.{what}.json").read_text()) for what in ("train", "backtest", "peers")
    )
    for key in ("roc_auc", "average_precision"):
        if abs(report["ensemble"][key] - backtest["ensemble"][key]) > 1e-9:
            sys.exit(f"{kind}-{horizon}: train and backtest differ in {key} on the same slice")
    lines = [
        f"\n**{NAMES[kind]}, horizon {horizon} minutes.** {report['rows']} rows of the last fifth, base rate {report['base_rate']:.4f}, "
        f"{report['incidents']} windows begin in it; {report['labels']['incidents']} in all.\n\n",
        "| | ROC AUC | AP | recall at one false alarm per target-day |\n|---|---|---|---|\n",
    ]

    def number(value, digits=3):
        return "–" if value is None else f"{value:.{digits}f}"

    def line(name, ranking, point=None):
        recall = "–"
        if point is not None:
            low, high = point["intervals"]["recall"] or (None, None)
            recall = f"{number(point['recall'], 2)} ({number(low, 2)}–{number(high, 2)})"
        lines.append(f"| {name} | {number(ranking['roc_auc'])} | {number(ranking['average_precision'])} | {recall} |\n")

    line("**forewarn, ensemble**", report["ensemble"], report["at_budget"][BUDGET])
    for name, ranking in report["members"].items():
        line(f"forewarn, {name}", ranking)
    for name, ranking in peers["scores"].items():
        if name.startswith("python "):
            line(name.replace("python ", "Python, "), ranking)
    for name in ("random", "time_of_day", "static_threshold", "predict_linear"):
        if name in report["baselines"]:
            line(name, report["baselines"][name], report["baselines"][name]["at_budget"][BUDGET])
    best = max(
        (name for name in peers["differences"] if name.startswith("ensemble") and name.endswith("average_precision")),
        key=lambda name: -peers["differences"][name][0],
    )
    difference, low, high = peers["differences"][best]
    lines.append(
        f"\nAP of the ensemble minus that of the best of Python's ({best.split(' - ')[1].split()[0]}): "
        f"{difference:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}. "
        f"ECE {number(report['ensemble']['ece'], 4)}, Brier skill {number(report['ensemble']['brier_skill'], 3)}.\n"
    )
    return "".join(lines)


parser = argparse.ArgumentParser(description=__doc__)
commands = parser.add_subparsers(required=True)
for run in (openmetrics, config, span):
    command = commands.add_parser(run.__name__, help=run.__doc__)
    command.set_defaults(run=run)
    command.add_argument("csv")
    if run is config:
        command.add_argument("--signals", choices=["all", "mapped"], required=True)
        command.add_argument("--horizon", type=int, required=True)
        command.add_argument("--targets", type=int, required=True)
command = commands.add_parser("table", help=table.__doc__)
command.set_defaults(run=table)
command.add_argument("work")
command.add_argument("--signals", nargs="+", required=True)
command.add_argument("--horizons", nargs="+", required=True)
command.add_argument("--into")
chosen = parser.parse_args()
chosen.run(chosen)
