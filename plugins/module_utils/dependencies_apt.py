# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What apt and dpkg say, as data, and how an update is planned and carried out with them.

The parsers are pure functions of captured output (LC_ALL=C). `Apt` asks the programs. While nothing may
change it works on a copy of the package lists, and keeps no cache.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile

from ansible_collections.saveos.fleet.plugins.module_utils.converge import read, run

LISTS = "/var/lib/apt/lists"
INSTALL = re.compile(r"^Inst (\S+)(?: \[([^\]]*)\])? \((\S+) ?(.*)\)")
ENTRY = re.compile(r"^(\S+) \(([^)]+)\)[^;]*;.*?urgency=(\w+)", re.IGNORECASE)
CVE = re.compile(r"\bCVE-\d{4}-\d{4,7}\b")
SYSTEMS = {"debian": "Debian", "ubuntu": "Ubuntu"}
URGENCIES = ("low", "medium", "high", "emergency", "critical")
QUERY = "${binary:Package}\t${Version}\t${db:Status-Abbrev}\t${source:Package}\t${source:Version}\n"
OPTIONS = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")
QUIET = {
    "DEBIAN_FRONTEND": "noninteractive",
    "NEEDRESTART_SUSPEND": "1",
    "APT_LISTCHANGES_FRONTEND": "none",
    "LC_ALL": "C",
    "PAGER": "cat",
}
CHANGELOGS = 40  # of one look, and for so many seconds
CHANGELOG_SECONDS = 10


def parse_installed(text):
    """Output of dpkg-query with QUERY: {package: {version, status, source, source_version}}."""
    found = {}
    for line in text.splitlines():
        parts = line.split("\t")
        if len(parts) == 5 and parts[2].strip():
            found[parts[0]] = {
                "version": parts[1],
                "status": parts[2],
                "source": parts[3],
                "source_version": parts[4],
            }
    return found


def is_installed(status):
    """Is a dpkg status abbreviation that of a package whose installation was begun?"""
    return len(status) > 1 and status[1] not in "nc"


def unfinished(installed):
    """Packages that an interrupted run left: unpacked, half installed or configured, triggers pending."""
    return sorted(
        name
        for name, each in installed.items()
        if is_installed(each["status"]) and (each["status"][1] != "i" or each["status"][2:3].strip())
    )


def parse_sources(text):
    """Output of `apt-cache policy`: {source as version tables name it: {v, o, a, n, l, c}}."""
    found, source = {}, None
    for line in text.splitlines():
        words = line.split()
        if words and words[0].lstrip("-").isdigit():
            source = " ".join(words[1:])
            found.setdefault(source, {})
        elif words and words[0] == "release" and source:
            pairs = line.split("release", 1)[1].strip().split(",")
            found[source] = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return found


def is_security(release):
    """Do a source's Release labels say that it brings security updates?"""
    label, suites = release.get("l", ""), (release.get("a", ""), release.get("n", ""))
    return (
        "security" in label.lower()
        or any(suite.endswith("-security") for suite in suites)
        or release.get("o", "").startswith("UbuntuESM")
    )


def parse_policy(text):
    """Output of `apt-cache policy PACKAGE…`: {package: {installed, candidate, versions}}.

    Versions are [(version, [source])], in the order of the table: the newest first.
    """
    found, current = {}, None
    for line in text.splitlines():
        words = line.split()
        if line and not line[0].isspace() and line.rstrip().endswith(":"):
            current = found.setdefault(line.rstrip()[:-1], {"installed": "", "candidate": "", "versions": []})
        elif current is None or not words:
            continue
        elif words[0] in ("Installed:", "Candidate:"):
            current[words[0][:-1].lower()] = "" if words[1] == "(none)" else words[1]
        elif line.startswith(("     ", " *** ")) and not line.startswith("        "):
            current["versions"].append((words[1] if words[0] == "***" else words[0], []))
        elif line.startswith("        ") and words[0].lstrip("-").isdigit() and current["versions"]:
            current["versions"][-1][1].append(" ".join(words[1:]))
    return found


def judge(policy, sources):
    """What is pending: [{name, before, after, security: version or "", origin}], by name.

    `security` is the newest version above the installed one that a security source has.
    """
    pending = []
    for name, each in sorted(policy.items()):
        if not each["installed"] or each["candidate"] in ("", each["installed"]):
            continue
        order = [version for version, _ in each["versions"]]
        if each["candidate"] not in order or each["installed"] not in order:
            continue
        if order.index(each["candidate"]) > order.index(each["installed"]):
            continue  # a pin asks for a downgrade: nothing to update
        newer = each["versions"][: order.index(each["installed"])]
        safe = [version for version, places in newer if any(is_security(sources.get(p, {})) for p in places)]
        places = dict(each["versions"])[each["candidate"]]
        labels = [
            sources.get(place, {}).get("l") or place for place in places if not place.startswith("/var/lib")
        ]
        pending.append(
            {
                "name": name,
                "before": each["installed"],
                "after": each["candidate"],
                "security": safe[0] if safe else "",
                "origin": ", ".join(dict.fromkeys(labels)),
            }
        )
    return pending


def parse_plan(text):
    """Output of `apt-get -s`: what would be installed and removed, {package: version}, {package: version}."""
    install, remove = {}, {}
    for line in text.splitlines():
        if match := INSTALL.match(line):
            install[match.group(1)] = match.group(3)
        elif line.startswith("Remv "):
            words = line.split()
            remove[words[1]] = words[2].strip("[]") if len(words) > 2 else ""
    return install, remove


def parse_changelog(text, since):
    """A Debian changelog down to the version `since`: (CVE ids, the highest urgency or "")."""
    ids, urgency = [], ""
    for line in text.splitlines():
        if match := ENTRY.match(line):
            if match.group(2) == since:
                break
            told = match.group(3).lower()
            if told in URGENCIES and (not urgency or URGENCIES.index(told) > URGENCIES.index(urgency)):
                urgency = told
        ids += CVE.findall(line)
    return sorted(set(ids)), urgency


def parse_errors(text):
    """Sentences of apt about what it could not fetch or do."""
    wanted = ("Err:", "E: ", "W: Failed to fetch", "W: Some index files failed")
    return [line.strip() for line in text.splitlines() if line.startswith(wanted)]


def is_busy(text):
    """Does apt or dpkg say that another program holds its lock?"""
    return "Could not get lock" in text or "is another process using it" in text or "Unable to acquire" in text


def private_settings(dump, scratch):
    """apt's configuration (`apt-config dump`) with lists, caches and logs below a directory, and no hooks."""
    hooks = ("APT::Update::", "DPkg::Pre-", "DPkg::Post-", "DPkg::Tools::")
    kept = [line for line in dump.splitlines() if not line.startswith(hooks)]
    own = {
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::State::lists": f"{scratch}/lists",
        "Dir::Cache": f"{scratch}/cache",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Log": scratch,
        "Debug::NoLocking": "1",
    }
    return "\n".join(kept + [f'{key} "{value}";' for key, value in own.items()]) + "\n"


class Apt:
    """apt and dpkg of this host. With `private` it leaves no trace: lists are a copy, caches are not kept."""

    name = "apt"
    repair_command = "dpkg --configure -a"
    advisory_source = "changelogs"
    environment = QUIET
    is_busy = staticmethod(is_busy)

    def __init__(self, private):
        self.private = private
        self._scratch = ""
        self._environment = dict(QUIET)

    def __enter__(self):
        if self.private:
            self._scratch = tempfile.mkdtemp(prefix="saveos-apt-")
            os.chmod(self._scratch, 0o755)  # apt fetches as the user _apt
            lists = os.path.join(self._scratch, "lists")
            os.makedirs(os.path.join(self._scratch, "cache", "archives", "partial"))
            try:
                shutil.copytree(LISTS, lists, ignore=shutil.ignore_patterns("lock", "partial", "auxfiles"))
            except (OSError, shutil.Error):
                os.makedirs(lists, exist_ok=True)
            os.makedirs(os.path.join(lists, "partial"), exist_ok=True)
            path = os.path.join(self._scratch, "apt.conf")
            with open(path, "w", encoding="utf-8") as file:
                file.write(private_settings(run(["apt-config", "dump"], env=QUIET).stdout, self._scratch))
            self._environment["APT_CONFIG"] = path
        return self

    def __exit__(self, *_):
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _apt(self, program, *words, timeout=300):
        return run([program, *words], env=self._environment, timeout=timeout)

    def refresh(self):
        """Fetch the package lists; returns what apt could not fetch, as sentences."""
        done = self._apt(
            "apt-get", "-q", "-o", "Acquire::http::Timeout=20", "-o", "DPkg::Lock::Timeout=120", "update"
        )
        errors = parse_errors(done.stdout + "\n" + done.stderr)
        return errors or ([f"apt-get update ended {done.returncode}"] if done.returncode else [])

    def installed(self):
        """Packages of this host, by name."""
        return parse_installed(run(["dpkg-query", "-W", f"-f={QUERY}"], env=QUIET, timeout=60).stdout)

    def versions(self):
        """Versions of what is installed, by name."""
        return {
            name: each["version"] for name, each in self.installed().items() if is_installed(each["status"])
        }

    def interrupted(self):
        """What an interrupted run left, in words; empty where nothing is."""
        left = unfinished(self.installed())
        try:
            journal = [name for name in os.listdir("/var/lib/dpkg/updates") if name.isdigit()]
        except OSError:
            journal = []
        told = run(["dpkg", "--audit"], env=QUIET, timeout=60).stdout.strip()
        if not (left or journal or told):
            return ""
        words = [f"not fully installed: {', '.join(left)}"] if left else []
        words += [f"dpkg's journal holds {len(journal)} unfinished updates"] if journal else []
        return "; ".join(words + ([told] if told else []))

    def broken(self):
        """What apt says about unmet dependencies of what is installed; empty where there are none."""
        done = self._apt("apt-get", "-q", "check", timeout=60)
        return "\n".join(parse_errors(done.stdout + done.stderr)) if done.returncode else ""

    def held(self):
        """Names of packages that are on hold."""
        return set(self._apt("apt-mark", "showhold", timeout=30).stdout.split())

    def pending(self):
        """What could be updated, by name; see `judge`."""
        names = sorted(self.versions())
        if not names:
            return []
        policy = parse_policy(self._apt("apt-cache", "policy", *names, timeout=120).stdout)
        return judge(policy, parse_sources(self._apt("apt-cache", "policy", timeout=60).stdout))

    @staticmethod
    def _command(apply, pending, held, only):
        if apply == "all":
            return ["upgrade", "--with-new-pkgs"]
        chosen = [each for each in pending if each["security"] and each["name"] not in held]
        wanted = [
            f"{each['name']}={each['security']}" for each in chosen if only is None or each["name"] in only
        ]
        return ["install", "--only-upgrade", "--no-remove", *wanted] if wanted else []

    def plan(self, apply, pending, held, only=None):
        """What applying `all` or `security` would install: ({package: version}, why not or "").

        `only` are names of packages to which security updates are restricted.
        """
        command = self._command(apply, pending, held, only)
        if not command:
            return {}, ""
        done = self._apt("apt-get", "-q", "-s", *command, timeout=120)
        if done.returncode:
            return {}, "\n".join(parse_errors(done.stdout + done.stderr)) or f"apt-get ended {done.returncode}"
        return parse_plan(done.stdout)[0], ""

    def command(self, apply, pending, held, only=None):
        """The command line that applies `all` or `security`."""
        words = self._command(apply, pending, held, only)
        return ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", *OPTIONS, *words]

    def osv_names(self, names):
        """Packages as OSV knows them: {package: (ecosystem, source, source's version)}."""
        told = dict(line.split("=", 1) for line in (read("/etc/os-release") or "").splitlines() if "=" in line)
        system = SYSTEMS.get(told.get("ID", "").strip('"'))
        release = told.get("VERSION_ID", "").strip('"')
        installed = self.installed() if system else {}
        return {
            name: (f"{system}:{release}", installed[name]["source"], installed[name]["source_version"])
            for name in names
            if name in installed
        }

    def repair(self):
        """The command line that ends an interrupted run."""
        return ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"]

    def advisories(self, wanted):
        """CVE ids and urgency of updates by the packages' changelogs: {name: (ids, urgency)}.

        `wanted` is [(name, installed version, version of the update)]. A changelog that cannot be had is
        left out.
        """
        found = {}
        failed = 0
        for name, before, after in wanted[:CHANGELOGS]:
            done = self._apt("apt-get", "-qq", "changelog", f"{name}={after}", timeout=CHANGELOG_SECONDS)
            if done.returncode == 0 and done.stdout.strip():
                found[name] = parse_changelog(done.stdout, before)
            else:
                failed += 1
                if failed >= 3 and not found:
                    break  # no source of changelogs can be reached
        return found

    def kernel(self):
        """The newest installed kernel's release; empty where none is installed."""
        releases = [
            name[len("linux-image-") :].partition(":")[0].replace("-unsigned", "")
            for name, each in self.installed().items()
            if re.match(r"linux-image-\d", name) and each["status"].startswith(("ii", "hi"))
        ]
        newest = ""
        for release in releases:
            if not newest or run(["dpkg", "--compare-versions", release, "gt", newest]).returncode == 0:
                newest = release
        return newest
