"""Draws one incident of a backtest: the model's probability before it, and the two signals that moved most.

Of all incidents that an alarm foresaw it takes the one with the median lead time. Scores come from `forewarn dataset
export --model`, signals and failures from Prometheus, by the queries in the model's manifest.

    tutorial.py PROMETHEUS_URL MANIFEST CONFIG SCORES.parquet OUTPUT.svg
"""

import json
import re
import statistics
import sys
import urllib.parse
import urllib.request
from datetime import datetime, timezone
from html import escape

import pyarrow.parquet as parquet

url, manifest_path, config_path, scores_path, output = sys.argv[1:]
manifest = json.load(open(manifest_path))
config = open(config_path).read()
label = re.search(r"^targets:\n  label: (\S+)", config, re.M)[1]
number, unit = re.search(r"^  for: (\d+)([smh])", config, re.M).groups()
hold = int(number) * {"s": 1, "m": 60, "h": 3600}[unit]
step, horizon = manifest["step_seconds"], manifest["horizon_seconds"]
threshold = manifest["threshold"]["probability"]


def ask(expression, start, end):
    """Per target, {time: value} of a range query."""
    series = {}
    chunk = 10_000 * step
    while start <= end:
        form = {"query": expression, "start": start, "end": min(end, start + chunk), "step": step}
        with urllib.request.urlopen(f"{url}/api/v1/query_range", urllib.parse.urlencode(form).encode()) as answer:
            for one in json.load(answer)["data"]["result"]:
                values = series.setdefault(one["metric"].get(label), {})
                values.update((at, float(value)) for at, value in one["values"])
        start += chunk + step
    return series


table = parquet.read_table(scores_path, columns=["timestamp", "target", "score_ensemble"]).to_pydict()
scores = {}
for at, target, score in zip(table["timestamp"], table["target"], table["score_ensemble"]):
    scores.setdefault(target, []).append((at.replace(tzinfo=timezone.utc).timestamp(), score))
first = min(rows[0][0] for rows in scores.values())
last = max(rows[-1][0] for rows in scores.values())


def incidents():
    """Starts and ends of failures, as `failure` in the config says."""
    rules = manifest["label"]
    alerts = ["ALERTS{%s}" % ",".join(f'{k}="{v}"' for k, v in {"alertstate": "firing", **alert}.items()) for alert in rules["alerts"]]
    for expression in rules["queries"] + alerts:
        for target, samples in ask(expression, first, last).items():
            spell = None
            for at in sorted(samples):
                if spell and at - spell[1] <= rules["merge_gap_seconds"]:
                    spell[1] = at
                else:
                    if spell:
                        yield target, *spell
                    spell = [at, at]
            if spell:
                yield target, *spell


def opens(rows):
    """Moments at which alarms open: as a person is paged, one in each horizon at most."""
    since, before, covered = None, None, 0
    for at, score in rows:
        if score < threshold or (before is not None and at - before > step):
            since = None
        if score >= threshold and since is None:
            since = at
        before = at
        if since is not None and at - since >= hold and at > covered:
            covered = at + horizon
            yield at


alarms = {target: list(opens(rows)) for target, rows in scores.items()}
foreseen = []
for target, start, end in incidents():
    before = [at for at in alarms.get(target, []) if 0 < start - at <= horizon]
    if before:
        foreseen.append((start - min(before), target, start, end))
if not foreseen:
    sys.exit("no incident was foreseen, so that there is nothing to draw")
foreseen.sort()
lead, target, start, end = foreseen[(len(foreseen) - 1) // 2]
print(f"drawn: {target}, {lead / 60:.0f} min before its failure")

left, right = start - 5 * horizon, start + 0.6 * horizon


def moved(values):
    """How far a signal has left its beginning when the failure starts, in its own spread."""
    early = [v for t, v in values if t < left + 2 * horizon]
    late = [v for t, v in values if start - horizon / 4 <= t < start]
    if len(early) < 5 or not late:
        return 0.0
    return abs(statistics.mean(late) - statistics.mean(early)) / (statistics.pstdev(early) + 1e-9)


signals = []
for signal in manifest["signals"]:
    values = sorted(ask(signal["query"], left, right).get(target, {}).items())
    if values:
        signals.append((moved(values), signal, values))
signals.sort(key=lambda entry: -entry[0])

WIDTH, MARGIN, RIGHT, TOP = 860, 66, 16, 64
PANELS = [170, 92, 92]
GAP = 30
x = lambda t: MARGIN + (t - left) / (right - left) * (WIDTH - MARGIN - RIGHT)
clock = lambda t, pattern="%H:%M": datetime.fromtimestamp(t, timezone.utc).strftime(pattern)


def span(seconds):
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" + (f" {minutes % 60:02d} min" if minutes % 60 else "")


height = TOP + sum(PANELS) + GAP * len(PANELS) + 16
svg = [
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
    'font-family="system-ui, sans-serif" font-size="12" fill="#333">',
    f"<title>{escape(target)}: the warning came {span(lead)} before the failure</title>",
    f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    f'<text x="{MARGIN}" y="24" font-size="16" font-weight="600" fill="#111">{escape(target)}: warned {span(lead)} before the failure</text>',
    f'<text x="{MARGIN}" y="43" fill="#666">Held-out day {clock(start, "%d %B %Y")}, UTC; of the foreseen incidents the one with the median lead time</text>',
]


def path(points, colour, width):
    """A line that is interrupted where samples are missing."""
    words, before = [], None
    for t, at_x, at_y in points:
        words.append(f'{"L" if before is not None and t - before <= 1.5 * step else "M"}{at_x:.1f} {at_y:.1f}')
        before = t
    svg.append(f'<path d="{"".join(words)}" fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"/>')


def panel(top, tall, title, values, low, high, colour, ticks, drawn=1.4):
    y = lambda v: top + tall - (v - low) / (high - low) * tall
    svg.append(f'<text x="{MARGIN}" y="{top - 7}" font-weight="600">{escape(title)}</text>')
    svg.append(f'<rect x="{x(start):.1f}" y="{top}" width="{x(min(end + step, right)) - x(start):.1f}" height="{tall}" fill="#c0392b" opacity="0.16"/>')
    for tick in ticks:
        svg.append(f'<line x1="{MARGIN}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#e4e4e4"/>')
        svg.append(f'<text x="{MARGIN - 7}" y="{y(tick) + 4:.1f}" text-anchor="end" fill="#666">{tick:g}</text>')
    path([(t, x(t), y(v)) for t, v in values if left <= t <= right], colour, drawn)
    svg.append(f'<line x1="{x(start):.1f}" x2="{x(start):.1f}" y1="{top}" y2="{top + tall}" stroke="#c0392b" stroke-width="1.5"/>')
    svg.append(f'<line x1="{x(start - lead):.1f}" x2="{x(start - lead):.1f}" y1="{top}" y2="{top + tall}" stroke="#b9770e" stroke-width="1.5" stroke-dasharray="2 3"/>')
    return y


def nice(values):
    """A round range around the values, and three to five ticks in it."""
    low, high = min(values), max(values)
    rough = (high - low or abs(high) or 1) / 3
    size = 10 ** len(str(int(rough))) / 10 if rough >= 1 else 10 ** -len(re.match(r"0\.(0*)", f"{rough:.9f}")[0][1:])
    size = next(size * m for m in (1, 2, 5, 10) if size * m >= rough)
    ticks = [size * k for k in range(int(low // size), int(-(-high // size)) + 1)]
    return ticks[0], ticks[-1], ticks


top = TOP + 14
y = panel(top, PANELS[0], f"failure probability within {span(horizon)}", scores[target], 0, 1, "#1f5fa8", [0, 0.25, 0.5, 0.75, 1], 2)
svg.append(f'<line x1="{MARGIN}" x2="{WIDTH - RIGHT}" y1="{y(threshold):.1f}" y2="{y(threshold):.1f}" stroke="#b9770e" stroke-dasharray="6 4"/>')
svg.append(f'<text x="{MARGIN + 6}" y="{y(threshold) - 5:.1f}" fill="#9a6209">alarm threshold {threshold:.2f}</text>')
earlier = [at for at in alarms[target] if left < at < start - lead]
for at in earlier:
    svg.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top}" y2="{top + PANELS[0]}" stroke="#b9770e" stroke-dasharray="1 4"/>')
for at in [*earlier, start - lead]:
    svg.append(f'<text x="{x(at) + 3:.1f}" y="{top - 7}" text-anchor="end" fill="#9a6209">alarm {clock(at)}</text>')
svg.append(f'<text x="{WIDTH - RIGHT}" y="{top - 7}" text-anchor="end" fill="#c0392b">failure {clock(start)}</text>')
for (_, signal, values), tall in zip(signals, PANELS[1:]):
    top += tall + GAP if tall != PANELS[1] or top > TOP + 14 else PANELS[0] + GAP
    low, high, ticks = nice([v for _, v in values])
    name = signal["name"] + ("" if signal["unit"] == "none" else f' ({signal["unit"]})')
    panel(top, tall, name, values, low, high, "#444", ticks)
bottom = top + PANELS[-1]
spacing = next(s for s in (600, 1200, 1800, 3600, 7200, 10800, 14400, 21600) if (right - left) / s <= 12)
tick = left - left % spacing + spacing
while tick < right:
    svg.append(f'<text x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle" fill="#666">{clock(tick)}</text>')
    tick += spacing
svg.append("</svg>")
open(output, "w").write("\n".join(svg) + "\n")
