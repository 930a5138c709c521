# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What dnf and rpm say, as data, and how an update is planned and carried out with them.

Written for dnf 4; where dnf 5 prints other words, both are read. The parsers are pure functions of
captured output (LC_ALL=C).
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile

from ansible_collections.saveos.fleet.plugins.module_utils.converge import run

QUIET = {"LC_ALL": "C"}
PENDING = r"%{name}.%{arch}\t%{evr}\t%{repoid}\n"
QUERY = "%{NAME}.%{ARCH}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n"
PACKAGE = re.compile(r"^(?P<name>.+)-(?P<evr>(?:\d+:)?[^-]+-[^-]+)\.(?P<arch>[^.]+)$")
CVE = re.compile(r"\bCVE-\d{4}-\d{4,7}\b")
SEVERITIES = ("Low", "Moderate", "Important", "Critical")


def parse_installed(text):
    """Output of rpm -qa with QUERY: {name.arch: version}; of several versions of one package the last told."""
    found = {}
    for line in text.splitlines():
        name, tab, version = line.partition("\t")
        if tab and not name.startswith("gpg-pubkey"):
            found[name] = version
    return found


def parse_pending(text):
    """Output of `dnf repoquery --upgrades` with PENDING: {name.arch: (version, repository)}; the last wins."""
    found = {}
    for line in text.splitlines():
        parts = line.strip().split("\t")
        if len(parts) == 3:
            found[parts[0]] = (without_zero(parts[1]), parts[2])
    return found


def without_zero(version):
    """A version without an epoch of zero, as rpm prints it."""
    return version[2:] if version.startswith("0:") else version


def parse_package(text):
    """A package as advisories name it: (name.arch, version), or None."""
    match = PACKAGE.match(text)
    return (f"{match['name']}.{match['arch']}", without_zero(match["evr"])) if match else None


def parse_advisories(text, mark=""):
    """Output of `dnf updateinfo list [--with-cve] --security`: {name.arch: [(id, severity, version)]}.

    A line is `ID SEVERITY/Sec. PACKAGE` (dnf 4) or `ID TYPE SEVERITY PACKAGE …` (dnf 5).
    """
    found = {}
    for line in text.splitlines():
        words = line.split()
        if mark and words and words[0] == mark:
            words = words[1:]
        package = next((parsed for word in words[2:] if (parsed := parse_package(word))), None)
        if not package or (len(words) > 3 and words[1] not in ("security",)):
            continue
        told = words[2] if words[1] == "security" else words[1].partition("/")[0]
        severity = told if told in SEVERITIES else ""
        entry = (words[0], severity, package[1])
        if entry not in found.setdefault(package[0], []):
            found[package[0]].append(entry)
    return found


def parse_versionlock(text):
    """Output of `dnf versionlock list`: names of packages, without versions."""
    names = set()
    for line in map(str.strip, text.splitlines()):
        if line.startswith("Package name: "):  # dnf 5
            names.add(line.partition(": ")[2])
        elif line and " " not in line and not line.startswith("!"):
            match = re.match(r"(.+?)-(?:\d+:)?[^-]+-[^-]+$", line)
            names.add(match.group(1) if match else line)
    return names


def parse_plan(text):
    """Table of a transaction (`dnf --assumeno`): {name.arch: version} of what would be installed."""
    plan, wanted = {}, False
    for line in text.splitlines():
        if line.startswith(("Upgrading:", "Installing:", "Installing dependencies:", "Installing weak")):
            wanted = True
        elif line and not line[0].isspace():
            wanted = False
        elif wanted:
            words = line.split()
            if len(words) >= 4 and words[0] != "replacing":
                plan[f"{words[0]}.{words[1]}"] = without_zero(words[2])
    return plan


def parse_errors(text):
    """Sentences of dnf about what it could not fetch or do."""
    return [
        line.strip()
        for line in text.splitlines()
        if line.strip().startswith(("Error:", "Errors during", "Failed to", "Cannot"))
    ]


def is_busy(text):
    """Does dnf say that another program holds its lock?"""
    return "Waiting for process with pid" in text or "transaction lock" in text


class Dnf:
    """dnf and rpm of this host. With `private` its caches and logs are in a directory that is removed."""

    name = "dnf"
    repair_command = "dnf remove --duplicates"
    advisory_source = "the repositories' advisories"
    environment = QUIET
    is_busy = staticmethod(is_busy)

    def __init__(self, private):
        self.private = private
        self._scratch = ""
        self._options = ["-q"]
        self._advised = {}

    def __enter__(self):
        if self.private:
            self._scratch = tempfile.mkdtemp(prefix="saveos-dnf-")
            self._options += [
                f"--setopt={key}={self._scratch}/{key}" for key in ("cachedir", "logdir", "system_cachedir")
            ]
            try:
                shutil.copytree("/var/cache/dnf", os.path.join(self._scratch, "cachedir"), symlinks=True)
            except (OSError, shutil.Error):
                pass
        return self

    def __exit__(self, *_):
        if self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _dnf(self, *words, timeout=300):
        return run(["dnf", *self._options, *words], env=QUIET, timeout=timeout)

    def refresh(self):
        """Fetch the repositories' metadata; returns what dnf could not fetch, as sentences."""
        done = self._dnf("makecache", "--refresh")
        errors = parse_errors(done.stdout + "\n" + done.stderr)
        return errors or ([f"dnf makecache ended {done.returncode}"] if done.returncode else [])

    def versions(self):
        """Versions of what is installed, by name.arch."""
        return parse_installed(run(["rpm", "-qa", f"--qf={QUERY}"], env=QUIET, timeout=60).stdout)

    def interrupted(self):
        """What an interrupted transaction left, in words; empty where nothing is."""
        told = self._dnf("check", "--duplicates", timeout=120)
        lines = [line for line in told.stdout.splitlines() if "duplicate" in line]
        return "two versions of one package are installed: " + "; ".join(lines[:20]) if lines else ""

    def broken(self):
        """What dnf says about unmet dependencies of what is installed; empty where there are none."""
        done = self._dnf("check", "--dependencies", timeout=120)
        return done.stdout.strip() if done.returncode and done.stdout.strip() else ""

    def held(self):
        """Names (with and without architecture) of packages that a version lock holds."""
        done = self._dnf("versionlock", "list", timeout=60)
        names = parse_versionlock(done.stdout) if done.returncode == 0 else set()
        return {package for package in self.versions() if package.rpartition(".")[0] in names}

    def pending(self):
        """What could be updated, by name; as `dependencies_apt.judge`. Locked packages are asked for, too."""
        lock = ["--disableplugin=versionlock"]
        told = parse_pending(
            self._dnf(*lock, "repoquery", "--upgrades", "--latest-limit=1", f"--qf={PENDING}").stdout
        )
        self._advised = parse_advisories(
            self._dnf(*lock, "updateinfo", "list", "--updates", "--security").stdout
        )
        installed = self.versions()
        return [
            {
                "name": name,
                "before": installed.get(name, ""),
                "after": version,
                "security": self._advised[name][-1][2] if name in self._advised else "",
                "origin": repository,
            }
            for name, (version, repository) in sorted(told.items())
        ]

    @staticmethod
    def _command(apply, only):
        return ["upgrade", "--security", *sorted(only or ())] if apply == "security" else ["upgrade"]

    def plan(self, apply, pending, held, only=None):
        """What applying `all` or `security` would install: ({package: version}, why not or "").

        `only` are names of packages to which security updates are restricted.
        """
        done = run(
            ["dnf", *self._options[1:], "--assumeno", *self._command(apply, only)], env=QUIET, timeout=300
        )
        plan = parse_plan(done.stdout)
        errors = parse_errors(done.stderr)
        return plan, "" if plan or "Nothing to do" in done.stdout else "\n".join(errors)

    def command(self, apply, pending, held, only=None):
        """The command line that applies `all` or `security`."""
        return ["dnf", "-y", *self._command(apply, only)]

    def osv_names(self, names):
        """OSV is not asked: repositories bring their advisories along."""
        return {}

    def repair(self):
        """The command line that ends an interrupted run."""
        return ["dnf", "-y", "remove", "--duplicates"]

    def advisories(self, wanted):
        """CVE ids and severity of updates by the repositories' advisories: {name: (ids, severity)}."""
        cves = parse_advisories(
            self._dnf(
                "--disableplugin=versionlock", "updateinfo", "list", "--updates", "--security", "--with-cve"
            ).stdout
        )
        found = {}
        for name, _, _ in wanted:
            told = self._advised.get(name, []) + cves.get(name, [])
            ids = sorted({each[0] for each in told if CVE.match(each[0])} or {each[0] for each in told})
            worst = max((SEVERITIES.index(each[1]) for each in told if each[1]), default=-1)
            found[name] = (ids, SEVERITIES[worst].lower() if worst >= 0 else "")
        return found

    def kernel(self):
        """The newest installed kernel's release; empty where none is installed."""
        done = run(["rpm", "-q", "kernel-core", "--last"], env=QUIET, timeout=30)
        first = done.stdout.split()[:1] if done.returncode == 0 else []
        return first[0][len("kernel-core-") :] if first else ""
