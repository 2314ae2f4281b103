#!/usr/bin/env python3
"""Runs every query, annotation and variable of every dashboard against a real Prometheus: none may fail, none may stay empty without a reason."""
import argparse
import json
import pathlib
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

# (dashboard, panel) that shows nothing while all is well, and why.
FEW = "given from 10 judged alarms, 10 incidents or a target-week of scores on"
FORESEEN = "only when a foreseen failure has begun"
A_DAY = "given when most of a day was scored"
MAY_BE_EMPTY = {
    **{(board, panel): FEW for board in ("fleet", "quality", "target") for panel in ("Precision", "Recall", "False alarms / target-week")},
    ("target", "Alarms that were right"): FEW,
    ("quality", "Precision and recall"): FEW,
    ("fleet", "Not predicted now, and why"): "only when a target has no prediction",
    **{(board, "Lead time, median"): FORESEEN for board in ("fleet", "quality", "target")},
    ("quality", "Lead time"): FORESEEN,
    ("quality", "Drift of the most drifting features"): A_DAY,
    ("quality", "Drift beyond that of any day in training"): A_DAY,
    ("health", "Prediction duration"): "only when somebody calls /predict",
}

# The same, only while no target was at risk.
QUIET = {("fleet", "Alerts of forewarn"), ("target", "Reasons over time"), ("target", "Reasons now")}

# What must have begun for an annotation to have something to mark; for one without a line here nothing need have happened.
MARKED = {
    "Alarms": 'last_over_time(ALERTS{{forewarn="true",alertstate="firing",target!=""}}[{0}]) unless ALERTS{{alertstate="firing"}} offset {0}',
    "Incidents": 'max_over_time(forewarn_target_state{{state="failing"}}[{0}]) == 1 unless forewarn_target_state offset {0} == 1',
}


def ask(base, path, **parameters):
    url = f"{base}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]["result"]
    except urllib.error.HTTPError as error:
        body = error.read().decode(errors="replace")
        raise RuntimeError(json.loads(body)["error"] if body.startswith("{") else f"{error}: {body[:200]}") from None
    except OSError as error:
        raise RuntimeError(f"{base}: {error}") from None


def pick_target(base, window):
    """A target that forewarn has warned of, so that its panels have something to show, and whether there is one."""
    warned = f'last_over_time(ALERTS{{forewarn="true",alertstate="firing"}}[{window}]) and on (target) last_over_time(forewarn_feature_contribution[{window}])'
    for query in (warned, f"last_over_time(forewarn_target_state[{window}])"):
        found = ask(base, "query", query=f"topk(1, {query})")
        if found:
            return found[0]["metric"]["target"], query == warned
    raise RuntimeError(f"{base} has no forewarn_target_state within {window}: is forewarn running and scraped?")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", required=True, metavar="URL")
    parser.add_argument("--minutes", type=float, default=5, help="how far back to look (default: %(default)s)")
    parser.add_argument("--rate-interval", default="15s", help="what $__rate_interval becomes, at least four scrape intervals (default: %(default)s)")
    options = parser.parse_args()

    base, seconds = options.prometheus.rstrip("/"), int(options.minutes * 60)
    end, step = int(time.time()), max(1, seconds // 200)
    target, warned = pick_target(base, f"{seconds}s")
    horizons = ask(base, "query", query=f"last_over_time(forewarn_model_info[{seconds}s])")
    if not horizons:
        raise RuntimeError(f"{base} has no forewarn_model_info: does forewarn serve a model?")
    variables = {"target": target, "filter": ".*", "instance": ".*", "horizon": horizons[0]["metric"]["horizon"], "__range": f"{seconds}s", "__range_s": str(seconds),
                 "__interval": options.rate_interval, "__rate_interval": options.rate_interval}
    print(f"the last {seconds} s, target {target}, {'which forewarn warned of' if warned else 'no target was at risk'}")

    def series(expr):
        expr = re.sub(r"\$\{?(\w+)\}?", lambda match: variables[match[1]], expr)
        found = ask(base, "query_range", query=expr, start=end - seconds, end=end, step=step)
        # A quantile of nothing is NaN, which draws nothing.
        return [one for one in found if any(value != "NaN" for _, value in one["values"])]

    may_be_empty = MAY_BE_EMPTY | ({} if warned else dict.fromkeys(QUIET, "no target was at risk"))
    excuses = {"(forewarn_shadow_": "no model in the shadow"} | ({} if warned else dict.fromkeys(("forewarn_feature_contribution", "ALERTS"), "no target was at risk"))
    failures, waived = 0, set(MAY_BE_EMPTY) | QUIET
    for path in sorted((pathlib.Path(__file__).parents[1] / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        panels = [(p["title"], p["targets"], may_be_empty.get((path.stem, p["title"]))) for p in board["panels"] if p.get("targets")]
        for note in board["annotations"]["list"]:
            if note.get("expr"):
                happened = note["name"] in MARKED and ask(base, "query", query=MARKED[note["name"]].format(f"{seconds}s"), time=end)
                if path.stem == "target":
                    happened = happened and any(one["metric"]["target"] == target for one in happened)
                panels.append((f"annotation {note['name']}", [note], None if happened else "nothing to mark"))
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                selector, label = re.match(r"label_values\((.+), (\w+)\)$", variable["definition"]).groups()
                panels.append((f"variable {variable['name']}", [{"expr": f"group by ({label}) ({selector})"}], None))
        for title, targets, excuse in panels:
            waived.discard((path.stem, title))
            for query in targets:
                expr, error, found = query["expr"], None, 0
                reason = excuse or next((why for name, why in excuses.items() if name in expr), None)
                try:
                    found = len(series(expr))
                except (RuntimeError, KeyError) as problem:
                    error = f"{type(problem).__name__} {problem} in {expr}"
                ok = not error and (found or reason)
                failures += not ok
                what = f"{title} {query['refId']}" if len(targets) > 1 else title
                print(f"{'ok  ' if ok else 'FAIL'}  {path.stem}: {what}: {error or (f'{found} series' if found or not reason else f'empty: {reason}')}")
    for board, title in sorted(waived):
        failures += 1
        print(f"FAIL  {board}: {title}: may be empty, but there is no such panel")
    sys.exit(f"{failures} queries failed" if failures else 0)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as problem:
        sys.exit(str(problem))
