"""The status page in a browser; tests/page.sh starts what it needs.

page.py many                                 writes the samples of 5,000 targets as OpenMetrics
page.py browse FEW MANY PID [PICTURES]       looks at the pages of five and of 5,000 targets; PID is that of the latter's forewarn
"""

import os
import re
import signal
import sys
import time
from urllib.parse import quote

TARGETS = 5000
MINUTES = 60
# Below the five minutes for which Prometheus takes a sample as the newest.
EVERY = 4
HOSTILE = ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "a'b&c;d%41+e/f?g#h", "عربي-\u202eright-to-left", "x" * 3000]

failures = 0


def check(what, is_so):
    global failures
    print(f"{'ok   ' if is_so else 'FAIL '} {what}", flush=True)
    failures += not is_so


def many(out):
    """Most are calm, a few run out of memory, a few are down, a few have too few signals."""
    names = [f"host-{i:04}.example.com" for i in range(TARGETS - len(HOSTILE))] + HOSTILE
    now = int(time.time())
    times = [now - 60 * minute for minute in range(MINUTES, -1, -EVERY)]
    metrics = {
        "fleet_cpu_usage_percent": lambda i, k, sick: 20 + i % 40 + k % 3 + (75 - i % 40) * sick,
        "fleet_memory_usage_percent": lambda i, k, sick: 35 + i % 30 + (67 - i % 30) * sick,
        "fleet_disk_usage_percent": lambda i, k, sick: 30 + i % 50,
        "fleet_network_latency_seconds": lambda i, k, sick: 0.01 + 0.05 * sick,
        "fleet_response_time_seconds": lambda i, k, sick: 0.1 + 8 * sick,
        "fleet_active_connections": lambda i, k, sick: 50 + i % 100,
        "fleet_errors": lambda i, k, sick: k * 150 * sick,
    }
    for metric, value in metrics.items():
        kind = "counter" if metric == "fleet_errors" else "gauge"
        suffix = "_total" if kind == "counter" else ""
        out.write(f"# TYPE {metric} {kind}\n")
        for i, name in enumerate(names):
            if i % 500 == 7 and metric not in ("fleet_cpu_usage_percent", "fleet_memory_usage_percent"):
                continue
            label = name.replace("\\", "\\\\").replace('"', '\\"')
            head = f'{metric}{suffix}{{instance="{label}",job="many",service="shop-{i % 7}"}}'
            for k, t in enumerate(times):
                sick = k / len(times) if i % 250 == 3 or name in HOSTILE[:2] else 0
                out.write(f"{head} {value(i, k, sick):.4g} {t}\n")
    out.write("# TYPE up gauge\n")
    for i in (100, 2100):
        for t in times[-2:]:
            out.write(f'up{{instance="{names[i]}",job="many"}} 0 {t}\n')
    out.write("# EOF\n")


def browse(few, lots, pid, pictures):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    arguments = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    wrong = []

    def opened(browser, **options):
        page = browser.new_context(**options).new_page()
        origins = {few, lots}
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: wrong.append(f"asks for {request.url}")
                if not request.url.startswith("data:") and "/".join(request.url.split("/")[:3]) not in origins else None)
        if options.get("java_script_enabled", True):
            page.add_init_script("addEventListener('securitypolicyviolation', (e) => console.error('policy', e.violatedDirective, e.sourceFile))")
        return page

    def picture(page, name, whole=False):
        if pictures:
            page.screenshot(path=f"{pictures}/{name}.png", full_page=whole)

    def names(page):
        return page.locator("#rows tbody th bdi").all_inner_texts()

    def shown(page):
        return page.locator("#count").inner_text()

    def until(page, words):
        page.locator("#count", has_text=words).wait_for(timeout=10_000)

    def accessible(page, what):
        found = Axe().run(page).response["violations"]
        for violation in found:
            print("     ", violation["id"], [node["target"] for node in violation["nodes"]][:3])
        check(f"axe finds nothing in {what}", not found)

    def fits(page, what):
        page.set_viewport_size({"width": 320, "height": 700})
        over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        check(f"{what} fits into 320 px (over by {over})", over <= 0)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments.split())

        page = opened(browser, viewport={"width": 1280, "height": 900})
        page.goto(few)
        check("five targets are listed", len(names(page)) == 5)
        check("the page says that the model is simulated", page.get_by_text("trained on simulated targets").is_visible())
        check("it leads to the dashboards", page.get_by_role("link", name="fleet").get_attribute("href") == "https://grafana.example.com/g/d/forewarn-fleet")
        check("times tell the reader's own zone", page.locator("time").first.get_attribute("title") != "")
        accessible(page, "the overview")
        picture(page, "few")
        name = names(page)[0]
        page.locator("body").press("Tab")
        check("the first tab stop skips to the content", page.evaluate("document.activeElement.className") == "skip")
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('tbody') !== null"):
                break
        page.keyboard.press("Enter")
        page.wait_for_url("**/?target=*")
        check("a target opens by keyboard alone", page.locator("h1").inner_text() == name)
        for part in ["Incidents and alerts", "Signals"]:
            check(f"and shows: {part}", page.get_by_role("heading", name=part).is_visible())
        accessible(page, "a target")
        picture(page, "target", whole=True)
        fits(page, "a target")
        picture(page, "target-narrow")
        page.go_back()
        fits(page, "the overview of five")
        dark = opened(browser, color_scheme="dark", viewport={"width": 1280, "height": 900})
        for what, url in [("the overview in the dark", few), ("a target in the dark", f"{few}/?target={quote(name)}")]:
            dark.goto(url)
            accessible(dark, what)
        picture(dark, "target-dark")
        background = dark.evaluate("getComputedStyle(document.body).backgroundColor")
        check(f"the dark scheme is dark ({background})", sum(map(int, re.findall(r"\d+", background)[:3])) < 150)

        plain = opened(browser, java_script_enabled=False)
        plain.goto(lots)
        plain.get_by_role("searchbox").fill("host-00")
        plain.get_by_role("button", name="Apply").click()
        check("without script the search works", shown(plain).startswith("100 targets of 5,000"))
        plain.get_by_role("link", name="Next").click()
        check("and so does paging", len(names(plain)) == 50 and "51 to 100" in shown(plain))
        plain.goto(f"{lots}/?target={quote(HOSTILE[2])}")
        check("and so does a link to a target with any name", plain.locator("h1").inner_text() == HOSTILE[2])

        page = opened(browser, viewport={"width": 1280, "height": 900})
        page.goto(lots)
        timing = page.evaluate("(({responseStart, responseEnd, domInteractive, domComplete, requestStart, decodedBodySize: size}) => "
                               "({first: responseStart - requestStart, whole: responseEnd - requestStart, interactive: domInteractive, complete: domComplete, size}))"
                               "(performance.getEntriesByType('navigation')[0])")
        print("      5,000 targets: " + ", ".join(f"{key} {value:.0f}" for key, value in timing.items()) + " (ms, bytes)")
        check("5,000 targets: the page is interactive within a second", timing["interactive"] < 1000)
        check("and has less than 200 kB", timing["size"] < 200_000)
        check("50 of 5,000 are shown", shown(page) == "5,000 targets, 1 to 50 are shown." and len(names(page)) == 50)
        check("risky ones have reasons and something to do", page.locator(".card .actions li").count() >= 2 and page.locator(".card .reasons li").count() >= 2)
        check("failing ones are on top", page.locator("#rows tbody tr").first.locator(".chip").inner_text() == "failing")
        accessible(page, "the overview of 5,000")
        picture(page, "many")
        dark.goto(lots)
        picture(dark, "many-dark")

        page.keyboard.press("/")
        page.keyboard.type("HOST-123", delay=20)
        until(page, "10 targets of")
        check("searching while one types", all("host-123" in name for name in names(page)))
        check("keeps the focus and is in the address", page.evaluate("document.activeElement.name") == "q" and page.url.endswith("?q=HOST-123"))
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_load_state("networkidle")
        check("so does loading anew", page.get_by_role("searchbox").input_value() == "HOST-123" and page.evaluate("document.activeElement.name") == "q")
        page.get_by_role("searchbox").fill("")
        until(page, "5,000 targets,")
        page.locator("#sort-target").focus()
        page.keyboard.press("Enter")
        page.locator("th.target[aria-sort=ascending]").wait_for()
        check("sorting by name", names(page) == sorted(names(page)) and page.locator("th.target").get_attribute("aria-sort") == "ascending")
        check("keeps the focus", page.evaluate("document.activeElement.id") == "sort-target")
        page.keyboard.press("Enter")
        page.locator("th.target[aria-sort=descending]").wait_for()
        check("and turns round", names(page) == sorted(names(page), reverse=True))
        page.locator("#next").click()
        until(page, "51 to 100")
        check("paging", "page=2" in page.url)
        page.go_back()
        until(page, "1 to 50")
        check("goes back", "page=2" not in page.url)
        page.get_by_label("failing").check()
        until(page, "2 targets of")
        check("filtering by state", page.locator("#rows .chip").all_inner_texts() == ["failing"] * 2)
        page.get_by_label("missing data").check()
        until(page, "12 targets of")
        page.locator("#clear").click()
        until(page, "5,000 targets")
        check("and all again", page.locator(":checked").count() == 0)
        for hostile in HOSTILE:
            page.goto(f"{lots}/?target={quote(hostile)}")
            check(f"opens {hostile[:40]!r}", page.locator("h1 bdi").text_content() == hostile)
        fits(page, "a target with a long name")
        page.goto(lots)
        fits(page, "the overview of 5,000")
        picture(page, "many-narrow")
        missing = page.request.get(f"{lots}/?target=nobody")
        check("a target that is not there is a 404 that says so", missing.status == 404 and "is not among the targets" in missing.text())

        page.set_viewport_size({"width": 1280, "height": 900})
        os.kill(pid, signal.SIGKILL)
        before = list(wrong)
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.get_by_role("alert").wait_for(state="visible")
        check("a forewarn that is gone is said", "does not answer" in page.get_by_role("alert").inner_text())
        check(f"no error, no violated policy, no other origin {before or ''}", not before)
        browser.close()
    return 1 if failures else 0


if __name__ == "__main__":
    if sys.argv[1:] == ["many"]:
        many(sys.stdout)
    elif sys.argv[1:2] == ["browse"]:
        sys.exit(browse(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] if len(sys.argv) > 5 else ""))
    else:
        sys.exit(__doc__)
