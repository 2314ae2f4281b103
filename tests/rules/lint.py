"""What promtool does not see: every alert has its labels, texts, a runbook section and tests; every metric exists; dashboards fit together."""
import json
import pathlib
import re
import sys

root = pathlib.Path(__file__).parents[2]
metrics = set((root / "tests/metrics.lst").read_text().split())
problems = []


def check(ok, message):
    if not ok:
        problems.append(message)


def metrics_exist(where, text):
    recorded = set(re.findall(r"\w+:\w+:\w+", text))
    for name in recorded:
        text = text.replace(name, "")
    for name in re.findall(r"\b(?:forewarn|failure|predictions?|process)_[a-z_]*[a-z]\b(?!\.)", text):
        check(name in metrics, f"{where}: unknown metric {name}")


runbook = (root / "docs/runbook.md").read_text()
sections = {line[3:].strip().lower() for line in runbook.splitlines() if line.startswith("## ")}
tests = "".join(p.read_text() for p in sorted((root / "tests/rules").glob("*.test.yml")))
for path in sorted((root / "rules").glob("*.rules.yml")):
    text = path.read_text()
    rules = re.split(r"^      - (?=alert|record)", text, flags=re.M)[1:]
    for rule in rules:
        kind, name = re.match(r"(\w+): (\S+)", rule).groups()
        metrics_exist(f"{path.name}: {name}", re.sub(r"^ *(summary|action|runbook_url):.*$|#.*$", "", rule, flags=re.M))
        if kind == "record":
            continue
        for key in ("severity: (critical|warning|info)$", 'forewarn: "true"$', "summary: ", "description: ", "action: "):
            check(re.search(f"^ *{key}", rule, re.M), f"{path.name}: {name}: no line like {key}")
        check(f"docs/runbook.md#{name.lower()}\n" in rule, f"{path.name}: {name}: runbook_url is not #{name.lower()}")
        check(name.lower() in sections, f"docs/runbook.md: no section {name}")
        check(name in tests, f"tests/rules: {name} is not tested")

dashboards = {}
for path in sorted((root / "dashboards").glob("*.json")):
    board = json.loads(path.read_text())
    dashboards[path.name] = board
    check(board.get("uid") == f"forewarn-{path.stem}", f"{path.name}: uid is not forewarn-{path.stem}")
    check(board.get("id") is None, f"{path.name}: has an id")
    check(not re.search(r"https?://", path.read_text()), f"{path.name}: has an absolute link")
    variables = {v["name"] for v in board["templating"]["list"]}
    seen, cells = set(), {}
    for panel in board["panels"]:
        where = f"{path.name}: {panel['title']!r}"
        check(panel["id"] not in seen, f"{where}: id {panel['id']} is used twice")
        seen.add(panel["id"])
        grid = panel["gridPos"]
        check(grid["x"] + grid["w"] <= 24, f"{where}: wider than the grid")
        for cell in ((x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])):
            check(cell not in cells, f"{where}: overlaps {cells.get(cell)}")
            cells[cell] = panel["title"]
        if panel["type"] in ("row", "text"):
            continue
        check(panel.get("datasource", {}).get("uid") == "${datasource}", f"{where}: datasource is not the variable")
        check(panel.get("targets"), f"{where}: no query")
        for target in panel.get("targets", []):
            expr = target["expr"]
            metrics_exist(where, expr)
            for name in re.findall(r"\$\{?(\w+)", expr):
                check(name in variables or name.startswith("__"), f"{where}: unknown variable ${name}")
uids = {board["uid"] for board in dashboards.values()}
for name, board in dashboards.items():
    for uid in re.findall(r"/d/([\w-]+)", json.dumps(board)):
        check(uid in uids, f"{name}: links to {uid}, which does not exist")

print("\n".join(problems) or f"{len(dashboards)} dashboards and their links, all alerts: ok")
sys.exit(bool(problems))
