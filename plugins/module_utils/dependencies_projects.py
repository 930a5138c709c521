# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Language projects below configured roots, the libraries they pin, and what advisories say about those.

A project's files belong to whoever owns them: they are only read, as data, bounded in size and number,
without following a link or leaving the root's file system. Tools run on a copy that holds names and
versions only. What cannot be judged is said so, never passed over.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.request

from ansible_collections.saveos.fleet.plugins.module_utils.converge import run

PYTHON = ("requirements.txt", "poetry.lock", "uv.lock", "Pipfile.lock")
NODE = ("package-lock.json", "npm-shrinkwrap.json")
UNREAD = ("yarn.lock", "pnpm-lock.yaml", "Cargo.lock", "composer.lock", "Gemfile.lock", "go.sum")
SKIPPED = {"node_modules", ".git", "__pycache__", ".venv", "venv", "site-packages", "lost+found", ".cache"}
MAX_DEPTH = 8
MAX_PROJECTS = 200
MAX_FILE = 20 * 2**20  # bytes
MAX_LIBRARIES = 5000  # of one project
SCAN_SECONDS = 30
OSV_SECONDS = 10
OSV_BATCH = 500
OSV_DETAILS = 100
PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*===?\s*([A-Za-z0-9][A-Za-z0-9._+!-]*)")
LOOSE = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*(?:[<>~!=;@ ]|$)")
LEVELS = ("low", "moderate", "high", "critical")


def find_projects(roots, own=()):
    """Lock and requirement files below roots: ([path, kind], whether some were left out).

    Directories named in `own` (SaveOS's own programs) are not looked into.
    """
    found, until, whole = [], time.monotonic() + SCAN_SECONDS, True
    for root in map(os.path.normpath, roots):
        try:
            device = os.lstat(root).st_dev
        except OSError:
            continue
        for place, directories, files in os.walk(root):
            if len(found) >= MAX_PROJECTS or time.monotonic() > until:
                return found, False
            depth = place[len(root) :].count(os.sep)
            directories[:] = [
                name
                for name in sorted(directories)
                if name not in SKIPPED
                and depth < MAX_DEPTH
                and os.path.join(place, name) not in own
                and _is_inside(os.path.join(place, name), device)
            ]
            for name in sorted(files):
                kind = _kind(name)
                path = os.path.join(place, name)
                if kind and not os.path.islink(path):
                    found.append((path, kind))
    return found, whole


def _kind(name):
    if name in PYTHON or (name.startswith("requirements") and name.endswith(".txt")):
        return "python"
    if name in NODE:
        return "node"
    return "other" if name in UNREAD else ""


def _is_inside(path, device):
    try:
        told = os.lstat(path)
    except OSError:
        return False
    return told.st_dev == device and not os.path.islink(path)


def read_text(path):
    """Text of a project's file; None where it cannot be read or is too large or no plain file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        try:
            data = file.read(MAX_FILE + 1)
        except OSError:
            return None
    return None if len(data) > MAX_FILE else data.decode("utf-8", "replace")


def libraries(path, text):
    """What a file pins: ([(name, version)], names without an exact version). Raises ValueError when broken."""
    name = os.path.basename(path)
    if name in NODE:
        return parse_package_lock(text), []
    if name == "Pipfile.lock":
        return parse_pipfile(text), []
    if name in ("poetry.lock", "uv.lock"):
        return parse_toml_lock(text), []
    return parse_requirements(text)


def read_project(path, kind):
    """A project's file: (text, [(name, version)], names without an exact version). Raises ValueError."""
    if kind == "other":
        return "", [], []
    text = read_text(path)
    if text is None:
        raise ValueError("it is no plain file, larger than 20 MiB, or cannot be read")
    try:
        return text, *libraries(path, text)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is broken: {error}") from None


def parse_requirements(text):
    """A requirements file: ([(name, version)], names without an exact version).

    Options and includes are left out.
    """
    pinned, loose = [], []
    for whole in text.replace("\\\n", " ").splitlines():
        line = whole.split(" #")[0].strip()
        if not line or line.startswith(("#", "-")):
            continue
        if match := PIN.match(line):
            pinned.append((_normal(match.group(1)), match.group(2)))
        elif match := LOOSE.match(line):
            loose.append(match.group(1))
    return pinned[:MAX_LIBRARIES], loose[:MAX_LIBRARIES]


def parse_toml_lock(text):
    """poetry.lock or uv.lock: name and version of each [[package]]; needs no TOML parser."""
    found, name = [], ""
    for line in text.splitlines():
        if line.startswith("[["):
            name = ""
        elif match := re.match(r'^(name|version) = "([^"]+)"$', line.strip()):
            if match.group(1) == "name":
                name = match.group(2)
            elif name:
                found.append((_normal(name), match.group(2)))
                name = ""
    return found[:MAX_LIBRARIES]


def parse_pipfile(text):
    """Pipfile.lock: what it pins for production. Raises ValueError."""
    told = json.loads(text)
    packages = told.get("default") if isinstance(told, dict) else None
    if not isinstance(packages, dict):
        raise ValueError("it has no section `default`")
    versions = {name: each.get("version") for name, each in packages.items() if isinstance(each, dict)}
    return [(_normal(name), str(told)[2:]) for name, told in versions.items() if str(told).startswith("==")][
        :MAX_LIBRARIES
    ]


def parse_package_lock(text):
    """package-lock.json of npm, version 1, 2 or 3: what it pins, development left out. Raises ValueError."""
    told = json.loads(text)
    if not isinstance(told, dict):
        raise ValueError("it is no object")
    found = set()
    packages = told.get("packages")
    if isinstance(packages, dict):
        for place, each in packages.items():
            if (
                place
                and isinstance(each, dict)
                and each.get("version")
                and not each.get("dev")
                and not each.get("link")
            ):
                found.add((str(each.get("name") or place.rpartition("node_modules/")[2]), str(each["version"])))
    else:
        _old_lock(told.get("dependencies"), found)
    return sorted(found)[:MAX_LIBRARIES]


def _old_lock(tree, found, depth=0):
    for name, each in (tree if isinstance(tree, dict) else {}).items():
        if isinstance(each, dict) and depth < 50:
            if each.get("version") and not each.get("dev"):
                found.add((str(name), str(each["version"])))
            _old_lock(each.get("dependencies"), found, depth + 1)


def _normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


class Unreachable(Exception):
    """No advisory source could be asked; the text says why."""


def pip_audit(pinned):
    """What pip-audit says: ({(name, version): [advisory]}, names it could not judge). Raises Unreachable."""
    with tempfile.TemporaryDirectory(prefix="saveos-audit-") as scratch:
        path = os.path.join(scratch, "requirements.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{name}=={version}\n" for name, version in pinned)
        words = ["pip-audit", "--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json"]
        done = run([*words, "--cache-dir", scratch, "-r", path], timeout=120)
    try:
        found, skipped = parse_pip_audit(done.stdout)
    except (ValueError, KeyError, TypeError):
        raise Unreachable(f"pip-audit: {_last(done.stderr)}") from None
    if len(skipped) == len(pinned):
        raise Unreachable("pip-audit could judge none of them")
    return found, skipped


def parse_pip_audit(text):
    """JSON of pip-audit: ({(name, version): [{ids, severity, fixed}]}, names that it skipped).

    Raises ValueError, KeyError or TypeError.
    """
    told = json.loads(text)
    found, skipped = {}, []
    for each in told["dependencies"] if isinstance(told, dict) else told:
        if each.get("skip_reason"):
            skipped.append(each["name"])
        for advisory in each.get("vulns", ()):
            ids = sorted({advisory["id"], *advisory.get("aliases", ())})
            entry = {"ids": ids, "severity": "", "fixed": ", ".join(advisory.get("fix_versions", ()))}
            found.setdefault((_normal(each["name"]), each["version"]), []).append(entry)
    return found, skipped


def npm_audit(text):
    """What `npm audit` says about a lock file's text: {(name, ""): [advisory]}. Raises Unreachable."""
    told = json.loads(text)
    with tempfile.TemporaryDirectory(prefix="saveos-audit-") as scratch:
        # the lock's own list of direct dependencies is all that npm needs of package.json
        root = (told.get("packages") or {}).get("") or {}
        direct = root.get("dependencies") or dict.fromkeys(told.get("dependencies") or {}, "*")
        manifest = {"name": "audited", "version": "0.0.0", "dependencies": direct}
        for name, content in (("package.json", json.dumps(manifest)), ("package-lock.json", text)):
            with open(os.path.join(scratch, name), "w", encoding="utf-8") as file:
                file.write(content)
        words = ["npm", "audit", "--json", "--package-lock-only", "--omit=dev", "--ignore-scripts"]
        done = run([*words, "--prefix", scratch, f"--cache={scratch}/cache"], timeout=120)
    try:
        return parse_npm_audit(done.stdout)
    except (ValueError, KeyError, TypeError):
        raise Unreachable(f"npm audit: {_npm_words(done.stdout, done.stderr)}") from None


def parse_npm_audit(text):
    """JSON of `npm audit` (npm 7 and later): {(name, ""): [{ids, severity, fixed}]}.

    Raises ValueError, KeyError or TypeError.
    """
    told = json.loads(text)
    found = {}
    for name, each in told["vulnerabilities"].items():
        for advisory in each.get("via", ()):
            if isinstance(advisory, dict):
                address = str(advisory.get("url", ""))
                ids = [address.rpartition("/")[2] or str(advisory.get("source", ""))]
                entry = {"ids": ids, "severity": advisory.get("severity", ""), "fixed": ""}
                found.setdefault((name, ""), []).append(entry)
    return found


def _npm_words(stdout, stderr):
    """Why npm could not audit: what its JSON says, else the first line of its errors."""
    try:
        told = json.loads(stdout)
        words = told.get("message") or (told.get("error") or {}).get("summary") or ""
    except (ValueError, AttributeError):
        words = ""
    lines = [line for line in stderr.splitlines() if line.strip()]
    return (str(words) or (lines[0] if lines else "it said nothing")).strip()[:300]


def _last(text):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def ask_osv(url, ecosystem, pinned):
    """What OSV says: {(name, version): [{ids, severity, fixed}]}. Raises Unreachable."""
    found = {}
    for start in range(0, len(pinned), OSV_BATCH):
        part = pinned[start : start + OSV_BATCH]
        queries = [
            {"package": {"ecosystem": ecosystem, "name": name}, "version": version} for name, version in part
        ]
        answers = _json(f"{url}/v1/querybatch", {"queries": queries}).get("results") or []
        for pair, answer in zip(part, answers):  # noqa: B905 - hosts may have Python 3.9
            ids = [str(each.get("id", "")) for each in (answer or {}).get("vulns") or ()]
            if ids:
                found[pair] = ids
    known, until = {}, time.monotonic() + 3 * OSV_SECONDS
    for advisory in sorted({each for ids in found.values() for each in ids})[:OSV_DETAILS]:
        if time.monotonic() > until:
            break
        try:
            known[advisory] = parse_osv(_json(f"{url}/v1/vulns/{advisory}"))
        except Unreachable:
            break
    plain = {"severity": "", "fixed": ""}
    return {
        pair: [known.get(advisory) or {"ids": [advisory], **plain} for advisory in ids]
        for pair, ids in found.items()
    }


def parse_osv(told):
    """An advisory of OSV as {ids, severity, fixed}; CVE ids come first."""
    names = {
        str(told.get("id", "")),
        *map(str, told.get("aliases") or ()),
        *map(str, told.get("upstream") or ()),
    }
    ids = sorted(names - {""}, key=lambda name: (not name.startswith("CVE-"), name))
    severity = str((told.get("database_specific") or {}).get("severity") or "").lower()
    fixed = [
        str(event["fixed"])
        for each in told.get("affected") or ()
        for span in each.get("ranges") or ()
        for event in span.get("events") or ()
        if "fixed" in event and span.get("type") != "GIT"
    ]
    severity = {"medium": "moderate"}.get(severity, severity)
    return {"ids": ids, "severity": severity if severity in LEVELS else "", "fixed": fixed[-1] if fixed else ""}


def gather(entries):
    """Advisories of one package as one: (ids, the highest severity or "")."""
    ids = sorted({each["ids"][0] for each in entries if each["ids"]})
    worst = max((LEVELS.index(each["severity"]) for each in entries if each["severity"] in LEVELS), default=-1)
    return ids, LEVELS[worst] if worst >= 0 else ""


def _json(url, body=None):
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", "User-Agent": "saveos"})
    try:
        with urllib.request.urlopen(request, timeout=OSV_SECONDS) as answer:
            told = json.loads(answer.read(20 * 2**20))
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise Unreachable(f"{url.partition('://')[2].partition('/')[0]}: {error}") from None
    return told if isinstance(told, dict) else {}


def audit(kind, text, pinned, osv):
    """Ask the best source at hand about a project: ({(name, version): [advisory]}, not judged, source).

    That is the language's own tool where it is installed, else OSV at the address `osv`; an empty one asks
    nobody. Raises Unreachable.
    """
    if not osv:
        raise Unreachable("asking advisory sources is turned off (online: false)")
    why = ""
    try:
        if kind == "python" and shutil.which("pip-audit"):
            return *pip_audit(pinned), "pip-audit"
        if kind == "node" and shutil.which("npm"):
            return npm_audit(text), [], "npm audit"
    except Unreachable as error:
        why = f"{error}; "
    try:
        return ask_osv(osv, "PyPI" if kind == "python" else "npm", pinned), [], "OSV"
    except Unreachable as error:
        raise Unreachable(f"{why}{error}") from None
