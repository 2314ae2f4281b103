"""What promtool does not see: every alert has its labels, texts, links, a runbook section and tests; every metric exists; dashboards fit together."""
import json
import pathlib
import re
import subprocess
import sys
import tempfile

root = pathlib.Path(__file__).parents[2]
metrics = set((root / "tests/metrics.lst").read_text().split())
DURATIONS = {"horizon": "30m", "__range": "1h", "__interval": "1m", "__rate_interval": "1m"}
LEVELS = {"CRITICAL": "#D6203F", "HIGH": "#EE7A17", "MEDIUM": "#E8C410", "LOW": "#6FA8EC", "MINIMAL": "#2F6BC4"}
problems = []


def check(ok, message):
    if not ok:
        problems.append(message)


def metrics_exist(where, text):
    text = re.sub(r'"[^"]*"', '""', text)
    recorded = set(re.findall(r"\w+:\w+:\w+", text))
    for name in recorded:
        text = text.replace(name, "")
    for name in re.findall(r"\b(?:forewarn|failure|predictions?|process)_[a-z_]*[a-z]\b(?!\.)", text):
        check(name in metrics, f"{where}: unknown metric {name}")


# What the list names is what forewarn writes.
source = (root / "src/metrics.rs").read_text()
for name in metrics:
    if name.startswith("forewarn_"):
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        bare = re.sub(r"^forewarn_(shadow_|config_|model_)?", "", family)
        check(family in source or bare.removesuffix("_total") in source, f"tests/metrics.lst: {name} is not in src/metrics.rs")

runbook = (root / "docs/runbook.md").read_text()
sections = {line[3:].strip(): part for part in re.split(r"(?m)^(?=## )", runbook) for line in part.splitlines()[:1] if part.startswith("## ")}
anchors = {title.lower() for title in sections}
tests = "".join(p.read_text() for p in sorted((root / "tests/rules").glob("*.test.yml")))
statistics = re.findall(r'"(\w+)"', re.search(r"fn label.*?\n    }\n", (root / "src/features/statistic.rs").read_text(), re.S)[0])
check(statistics, "src/features/statistic.rs: no names of statistics found")
alerts = set()
for path in sorted((root / "rules").glob("*.rules.yml")):
    text = path.read_text()
    rules = re.split(r"^      - (?=alert|record)", text, flags=re.M)[1:]
    for rule in rules:
        kind, name = re.match(r"(\w+): (\S+)", rule).groups()
        metrics_exist(f"{path.name}: {name}", re.sub(r"^ *(summary|action|runbook_url|\w+_url):.*$|#.*$", "", rule, flags=re.M))
        if kind == "record":
            continue
        alerts.add(name)
        for key in ("severity: (critical|warning|info)$", 'forewarn: "true"$', "summary: ", "description: ", "action: ", "dashboard_url: "):
            check(re.search(f"^ *{key}", rule, re.M), f"{path.name}: {name}: no line like {key}")
        check(f"docs/runbook.md#{name.lower()}\n" in rule, f"{path.name}: {name}: runbook_url is not #{name.lower()}")
        check(name.lower() in anchors, f"docs/runbook.md: no section {name}")
        check(name in tests, f"tests/rules: {name} is not tested")
    if "HighFailureProbability" in text:
        worded = set("|".join(re.findall(r"reReplaceAll `_\(?([a-z_|]+)\)?_\(", text)).split("|"))
        for statistic in statistics:
            check(statistic in worded, f"{path.name}: a reason with _{statistic}_ has no words")
for name, part in sections.items():
    if name not in alerts:
        check(not re.match("[A-Z][a-z]+[A-Z]", name), f"docs/runbook.md: section {name}, but there is no such alert")
        continue
    for heading in ("Meaning", "Why", "Check", "Do", "Silence", "Prevent"):
        check(f"*{heading}.*" in part, f"docs/runbook.md: {name}: does not say *{heading}.*")
for link in re.findall(r"\]\(#([\w-]+)\)", runbook):
    check(link in anchors, f"docs/runbook.md: links to #{link}, which is no section")

queries = []
KINDS = {"row", "text", "stat", "table", "timeseries", "state-timeline", "bargauge"}
dashboards = {}
for path in sorted((root / "dashboards").glob("*.json")):
    board = json.loads(path.read_text())
    dashboards[path.name] = board
    check(board.get("uid") == f"forewarn-{path.stem}", f"{path.name}: uid is not forewarn-{path.stem}")
    check(board.get("id") is None, f"{path.name}: has an id")
    check(board.get("schemaVersion", 0) >= 39, f"{path.name}: schemaVersion is below that of Grafana 10.4")
    check("__inputs" not in board, f"{path.name}: __inputs are not understood when it is provisioned")
    variables = {v["name"] for v in board["templating"]["list"]}
    check({"datasource", "forewarn_url"} <= variables, f"{path.name}: lacks a variable of datasource, forewarn_url")
    text = json.dumps([{k: v for k, v in board.items() if k != "templating"}, [v for v in board["templating"]["list"] if v["name"] != "forewarn_url"]])
    check(not re.search(r"https?://", text), f"{path.name}: has an absolute link")

    def fits(where, exprs, known):
        for expr in exprs:
            metrics_exist(where, expr)
            if not expr.startswith("label_values("):
                queries.append((where, re.sub(r"\$\{?(\w+)\}?", lambda m: DURATIONS.get(m[1], "x"), expr)))
        for name in re.findall(r"\$\{?(\w+)", " ".join(exprs)):
            check(name in known or name.startswith("__"), f"{where}: unknown variable ${name}")

    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            where = f"{path.name}: variable {variable['name']}"
            check(variable["datasource"]["uid"] == "${datasource}", f"{where}: datasource is not the variable")
            fits(where, [variable["definition"]], variables)
    for annotation in board["annotations"]["list"]:
        if not annotation.get("builtIn"):
            where = f"{path.name}: annotation {annotation['name']}"
            check(annotation["datasource"]["uid"] == "${datasource}", f"{where}: datasource is not the variable")
            fits(where, [annotation["expr"]], variables)
    for name in re.findall(r"\$\{(\w+)(?:[:.][\w.]+)?\}", json.dumps([board["links"], *[p.get("fieldConfig") for p in board["panels"]]])):
        check(name in variables or name.startswith("__"), f"{path.name}: a link has the unknown variable ${name}")
    seen, cells = set(), {}
    for panel in board["panels"]:
        where = f"{path.name}: {panel['title']!r}"
        check(panel["id"] not in seen, f"{where}: id {panel['id']} is used twice")
        seen.add(panel["id"])
        check(panel["type"] in KINDS, f"{where}: is a {panel['type']}, which is not looked at here")
        grid = panel["gridPos"]
        check(grid["x"] + grid["w"] <= 24, f"{where}: wider than the grid")
        for cell in ((x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])):
            check(cell not in cells, f"{where}: overlaps {cells.get(cell)}")
            cells[cell] = panel["title"]
        if panel["type"] in ("row", "text"):
            continue
        check(panel.get("description"), f"{where}: no description")
        field = panel["fieldConfig"]
        check(field["defaults"].get("noValue") or panel["type"] == "table" or "or vector(0)" in panel["targets"][0]["expr"], f"{where}: does not say what it means when it is empty")
        check(panel.get("datasource", {}).get("uid") == "${datasource}", f"{where}: datasource is not the variable")
        check(panel.get("targets"), f"{where}: no query")
        refs = [target["refId"] for target in panel.get("targets", [])]
        check(len(set(refs)) == len(refs), f"{where}: refId used twice in {refs}")
        check(all(target.get("datasource", {}).get("uid") == "${datasource}" for target in panel.get("targets", [])), f"{where}: a query's datasource is not the variable")
        fits(where, [target["expr"] for target in panel.get("targets", [])], variables)
        for override in field["overrides"]:
            level, colours = override["matcher"]["options"], [p["value"]["fixedColor"] for p in override["properties"] if p["id"] == "color"]
            check(level not in LEVELS or colours == [LEVELS[level]], f"{where}: {level} is {colours}, elsewhere {LEVELS.get(level)}")
    for level, colour in re.findall(r'"text": "([A-Z]+)", "color": "(#\w+)"', json.dumps(board)):
        check(LEVELS.get(level) == colour, f"{path.name}: {level} is {colour}, elsewhere {LEVELS.get(level)}")
uids = {board["uid"] for board in dashboards.values()}
for name, board in dashboards.items():
    for uid in re.findall(r"/d/([\w-]+)", json.dumps(board)):
        check(uid in uids, f"{name}: links to {uid}, which does not exist")
for uid in re.findall(r"/d/([\w-]+)", "".join(p.read_text() for p in (root / "rules").glob("*.yml"))):
    check(uid in uids, f"rules: link to {uid}, which does not exist")

# promtool knows PromQL: every query as the expression of a rule.
with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
    json.dump({"groups": [{"name": f"{i}: {where}", "rules": [{"record": "x", "expr": expr}]} for i, (where, expr) in enumerate(queries)]}, file)
    file.flush()
    answer = subprocess.run(["promtool", "check", "rules", "--lint=none", file.name], capture_output=True, text=True)
    check(answer.returncode == 0, answer.stderr)

print("\n".join(problems) or f"{len(dashboards)} dashboards and their links, {len(alerts)} alerts: ok")
sys.exit(bool(problems))
