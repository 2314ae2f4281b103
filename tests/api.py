#!/usr/bin/env python3
"""The parts of tests/api.sh that are not a shell's: examples by their schemas, the pages in a browser, the documents' snippets."""

import argparse
import base64
import json
import pathlib
import re
import urllib.request


def fetch(url, user=None):
    request = urllib.request.Request(url)
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def document(args):
    """The document is valid, every example is by its schema, and no operation lacks what a reader wants."""
    from jsonschema import Draft202012Validator, FormatChecker
    from openapi_spec_validator import validate

    spec = fetch(args.url + "/openapi.json", args.user)
    validate(spec)
    assert spec["openapi"].startswith("3.1."), spec["openapi"]
    components = {"components": spec["components"]}
    count, missing = 0, []

    def check(where, content):
        nonlocal count
        validator = Draft202012Validator({**content["schema"], **components}, format_checker=FormatChecker())
        examples = [e["value"] for e in content.get("examples", {}).values()]
        examples += [content["example"]] if "example" in content else []
        for example in examples:
            validator.validate(example)
            count += 1
        if not examples:
            missing.append(where)

    for method, path, operation in operations(spec):
        where = f"{method} {path}"
        assert operation["summary"] and operation["tags"], where
        if body := operation.get("requestBody"):
            assert body["required"], where
            check(f"{where} body", body["content"]["application/json"])
        for status, response in operation["responses"].items():
            assert response["description"], f"{where} {status}"
            for kind, content in response.get("content", {}).items():
                if status[0] in "45":
                    assert kind == "application/problem+json", f"{where} {status} is {kind}"
                    for name, example in content["examples"].items():
                        assert example["value"]["status"] == int(status), f"{where} {status} {name}"
                # Pages, scripts and the document itself are what they are.
                if "pages" not in operation["tags"] or status[0] in "45":
                    check(f"{where} {status} {kind}", content)
    for name, schema in spec["components"]["schemas"].items():
        if "example" in schema:
            Draft202012Validator({**schema, **components}).validate(schema["example"])
            count += 1
    assert not missing, f"no example: {missing}"
    schemes = sorted(spec["components"].get("securitySchemes", {}))
    print(f"      {count} examples, {len(list(operations(spec)))} operations, schemes: {', '.join(schemes) or 'none'}")


def pages(args):
    """Swagger UI and Redoc show every operation without an error or a request elsewhere, and "Try it out" works."""
    from playwright.sync_api import sync_playwright

    spec = fetch(args.url + "/openapi.json", args.user)
    summaries = {o["summary"] for _, _, o in operations(spec)}
    wrong, elsewhere = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=args.chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync"],
        )
        name, _, password = (args.user or "").partition(":")
        credentials = {"username": name, "password": password} if args.user else None
        context = browser.new_context(http_credentials=credentials, viewport={"width": 1280, "height": 1400})

        def route(request):
            if request.request.url.startswith((args.url + "/", "data:", "blob:")):
                request.continue_()
            else:
                elsewhere.append(request.request.url)
                request.abort()

        context.route("**/*", route)
        page = context.new_page()
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        # Violations of the Content-Security-Policy, whether or not the console tells them.
        page.add_init_script("document.addEventListener('securitypolicyviolation', e => console.error('policy: ' + e.violatedDirective + ' ' + e.blockedURI))")

        page.goto(args.url + "/docs")
        page.wait_for_selector(".opblock")
        shown = set(page.locator(".opblock-summary-description").all_inner_texts())
        assert summaries <= shown, f"/docs lacks {summaries - shown}"
        page.screenshot(path=args.pictures / "docs.png")
        block = page.locator("#operations-predictions-predict")
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        answer = block.locator(".live-responses-table .response-col_status").last
        answer.wait_for()
        assert answer.inner_text().split()[0] == "200", answer.inner_text()
        assert "failure_probability" in block.locator(".live-responses-table .highlight-code").first.inner_text()
        block.screenshot(path=args.pictures / "docs-predict.png")

        page.goto(args.url + "/redoc")
        page.get_by_role("heading", name="Score many observations").wait_for()
        text = page.locator("body").inner_text()
        lacking = {s for s in summaries if s.casefold() not in text.casefold()}
        assert not lacking, f"/redoc lacks {lacking}"
        page.screenshot(path=args.pictures / "redoc.png")
        browser.close()
    assert not elsewhere, f"asked elsewhere: {elsewhere}"
    assert not wrong, f"the console says: {wrong}"


def snippets(args):
    """Writes the snippets of a Markdown file that are marked `<!-- run: NAME -->` to a folder, for another server than the documented."""
    text = args.markdown.read_text()
    found = re.findall(r"<!-- run: (\S+) -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert found, f"{args.markdown} has no snippet to run"
    for name, code in found:
        code = code.replace("http://127.0.0.1:8000", args.url).replace("http://127.0.0.1:9090", args.prometheus)
        (args.out / name).parent.mkdir(parents=True, exist_ok=True)
        (args.out / name).write_text(code.replace('"web-1"', json.dumps(args.target)))
    print(f"      {', '.join(name for name, _ in found)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parts = parser.add_subparsers(required=True)
    for part in (document, pages):
        sub = parts.add_parser(part.__name__)
        sub.add_argument("url")
        sub.add_argument("--user")
        sub.add_argument("--chromium", default="/usr/bin/chromium")
        sub.add_argument("--pictures", type=pathlib.Path)
        sub.set_defaults(run=part)
    sub = parts.add_parser("snippets")
    sub.add_argument("markdown", type=pathlib.Path)
    sub.add_argument("out", type=pathlib.Path)
    for name in ("url", "prometheus", "target"):
        sub.add_argument("--" + name, required=True)
    sub.set_defaults(run=snippets)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
