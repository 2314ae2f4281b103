#!/usr/bin/env python3
"""What the release binary is made of: deploy/third_party.py FOLDER [TARGET]

Writes FOLDER/sbom.cdx.json (CycloneDX 1.5: every crate in the binary with version, checksum, licence and what it needs) and
FOLDER/THIRD-PARTY-NOTICES.txt (their licence texts, which MIT, BSD, ISC and Apache want beside a binary). Ends with 1
where a crate has no licence text. Reads Cargo.lock and the sources that cargo has fetched; needs nothing but Python.
"""
import json
import pathlib
import re
import subprocess
import sys
import tomllib

TARGET = "x86_64-unknown-linux-musl"
ROOT = pathlib.Path(__file__).resolve().parent.parent
IS_LICENCE = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def run(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def linked(metadata):
    """Crates that end up in the binary: by id, with the ids of what each needs. Nothing that only builds or tests."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    is_macro = {
        id: any("proc-macro" in target["kind"] for target in package["targets"])
        for id, package in packages.items()
    }
    found, queue = {}, [metadata["resolve"]["root"]]
    while queue:
        id = queue.pop()
        if id in found:
            continue
        found[id] = sorted(
            dependency["pkg"]
            for dependency in nodes[id]["deps"]
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]) and not is_macro[dependency["pkg"]]
        )
        queue.extend(found[id])
    return packages, found


def licence_texts(package):
    """Licence files at the top of a crate, and of C sources that it brings."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [path for path in sorted(folder.iterdir()) if IS_LICENCE.match(path.name)]
    files += [path for path in sorted(folder.glob("*/*/LICENSE*")) if "c_src" in path.parts]
    files = [path for entry in files for path in (sorted(entry.iterdir()) if entry.is_dir() else [entry])]
    return [(path.name, path.read_text(errors="replace").strip()) for path in files if path.suffix != ".rs"]


def main():
    folder = pathlib.Path(sys.argv[1])
    target = sys.argv[2] if len(sys.argv) > 2 else TARGET
    metadata = json.loads(run("cargo", "metadata", "--locked", "--format-version=1", "--filter-platform", target))
    packages, found = linked(metadata)
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    sums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}
    root = metadata["resolve"]["root"]

    def purl(id):
        return f"pkg:cargo/{packages[id]['name']}@{packages[id]['version']}"

    def component(id):
        package = packages[id]
        entry = {
            "type": "library" if id != root else "application",
            "bom-ref": purl(id),
            "name": package["name"],
            "version": package["version"],
            "purl": purl(id),
            "licenses": [{"expression": package["license"].replace("/", " OR ")}],
        }
        checksum = sums[package["name"], package["version"]]
        if checksum:
            entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        return entry

    others = sorted((id for id in found if id != root), key=purl)
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(root), "properties": [{"name": "cargo:target", "value": target}]},
        "components": [component(id) for id in others],
        "dependencies": [
            {"ref": purl(id), "dependsOn": [purl(needed) for needed in found[id]]} for id in sorted(found, key=purl)
        ],
    }

    texts, bare = {}, []
    for id in others:
        own = licence_texts(packages[id])
        if not own:
            bare.append(id)
        for _, text in own:
            texts.setdefault(text, []).append(f"{packages[id]['name']} {packages[id]['version']}")
    # Crates of one repository often share the licence file that only some of them carry.
    for id in bare[:]:
        source = packages[id]["repository"]
        siblings = [other for other in others if packages[other]["repository"] == source and other not in bare]
        if source and siblings:
            for _, text in licence_texts(packages[siblings[0]]):
                texts[text].append(f"{packages[id]['name']} {packages[id]['version']}")
            bare.remove(id)
    for path in sorted((ROOT / "src/server/assets").glob("LICENSE-*")):
        texts.setdefault(path.read_text().strip(), []).append(path.name.removeprefix("LICENSE-"))
    sysroot = pathlib.Path(run("rustc", "--print", "sysroot").strip())
    for path in sorted((sysroot / "share/doc/rust").glob("LICENSE-*")):
        texts.setdefault(path.read_text().strip(), []).append("Rust's standard library")

    notices = ["forewarn contains the following works of others, under the licences that follow them."]
    for text, users in sorted(texts.items(), key=lambda item: sorted(item[1])):
        notices.append("\n".join(["-" * 80, ", ".join(sorted(set(users))), "-" * 80, "", text]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sbom.cdx.json").write_text(json.dumps(bom, indent=1) + "\n")
    (folder / "THIRD-PARTY-NOTICES.txt").write_text("\n\n".join(notices) + "\n")
    print(f"{len(others)} crates, {len(texts)} licence texts, in {folder}", file=sys.stderr)
    for id in bare:
        print(f"{purl(id)} ({packages[id]['license']}) brings no licence text", file=sys.stderr)
    sys.exit(1 if bare else 0)


main()
