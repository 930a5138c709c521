#!/usr/bin/python
# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import os
import shutil
import subprocess

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.saveos.fleet.plugins.module_utils import (
    dependencies_apt,
    dependencies_dnf,
    dependencies_health,
    dependencies_projects,
)
from ansible_collections.saveos.fleet.plugins.module_utils.converge import read, run
from ansible_collections.saveos.fleet.plugins.module_utils.findings import Findings

DOCUMENTATION = r"""
module: dependencies
short_description: Audit and update what a host's software depends on
version_added: 0.1.0
author: The SaveOS contributors (@saveos)
description:
  - Says which packages of the operating system have updates, which of them mend security, which are held,
    and what must be started anew; what libraries language projects pin, and what advisories say about them.
  - Applies all updates, or those for security only, and then examines the host; a host that is not well
    afterwards fails, so that a play with C(serial) goes no further.
  - An interrupted earlier update is reported and never built upon; V(repair) ends it.
options:
  apply:
    description: What to install. V(none) only reports.
    type: str
    choices: [none, security, all, repair]
    default: none
  fixes:
    description: Findings to mend (C(security-update:PACKAGE), C(updates-pending), C(update-interrupted)); they
      decide what is applied.
    type: list
    elements: str
    default: []
  refresh:
    description: Fetch the package lists first; while nothing is applied, into a copy.
    type: bool
    default: true
  online:
    description: Ask advisory sources about what projects pin (and OSV about packages without a changelog).
    type: bool
    default: true
  osv_url:
    description: Address of OSV or of a copy of it.
    type: str
    default: https://api.osv.dev
  roots:
    description: Directories below which language projects are looked for.
    type: list
    elements: path
    default: []
  health_units:
    description: Units of systemd that must be active after an update.
    type: list
    elements: str
    default: []
  health_url:
    description: Address that must answer, asked from the host, after an update.
    type: str
    default: ""
  health_directory:
    description: Programs of root that must end with 0 after an update.
    type: path
    default: /etc/saveos/health.d
  timeout:
    description: Seconds that an installation may take; it is not ended then, but no longer waited for.
    type: int
    default: 7200
  offered:
    description: Versions that provisioning would install, by program; set by the action plugin.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Nothing is changed, not even package lists; the result says what would be installed.
"""

EXAMPLES = r"""
- name: Report only
  saveos.fleet.dependencies:
    roots: [/srv, /var/www]

- name: Install what mends security
  saveos.fleet.dependencies:
    apply: security
    health_units: [nginx.service]
"""

RETURN = r"""
saveos:
  description:
    - C(dependencies) holds C(state), C(summary), C(findings) and C(packages), these with versions before and
      after.
  returned: always
  type: dict
  sample: {dependencies: {schema: 1, state: ok, summary: {pending: 0, security: 0}, findings: []}}
"""

MAX_PACKAGES = 500  # in the result
MAX_WORDS = 2000  # characters of a program's output
APPLIED = ("security", "all")
LOGS = "/var/log/saveos"
LOG = LOGS + "/update.log"
GRAVE = ("critical", "emergency")
OWN = ("/opt/saveos",)
UPDATE = "saveos maintenance dependencies"
# What is found: severity, title, what to do. The first group is known after an update only.
AFTER = {
    "update-failed": ("critical", "The update failed.", f"Read the end of {LOG} on the host."),
    "package-manager-busy": (
        "critical",
        "Another program holds the package manager's lock.",
        "Wait until it is done, then run this again.",
    ),
    "health-check-failed": (
        "critical",
        "{sentence}",
        "Look at it on the host; updates of the other hosts wait until then.",
    ),
    "not-as-planned": ("warning", "What was installed differs from the plan.", f"Read {LOG} on the host."),
    "updates-installed": ("info", "{count} packages were installed.", ""),
}
FOUND = {
    "package-manager-unknown": (
        "warning",
        "The host's package manager is not known: apt and dnf are.",
        "Update this host by hand, or by its own tool.",
    ),
    "package-lists-unreachable": (
        "warning",
        "Package lists could not be fetched; what is told may be older.",
        "See that the host reaches its package sources, and that they are signed and current.",
    ),
    "update-interrupted": (
        "critical",
        "An earlier update was interrupted.",
        f"Run `{{repair}}` on the host, or `{UPDATE} repair HOST`.",
    ),
    "dependencies-unmet": (
        "critical",
        "Installed packages miss what they depend on.",
        "Run `apt-get --fix-broken install` (or `dnf distro-sync`) on the host, and read what it wants to do.",
    ),
    "plan-failed": (
        "warning",
        "The package manager finds no way to update.",
        "Read its words, and mend what is broken by hand.",
    ),
    "security-update": ("warning", "{name} has a security update.", f"{UPDATE} security HOST"),
    "held-security-update": (
        "warning",
        "A security update of {name} is held back by hand.",
        f"apt-mark unhold {{name}} (dnf: dnf versionlock delete {{name}}), then {UPDATE} security HOST",
    ),
    "held-update": (
        "info",
        "An update of {name} is held back by hand.",
        "apt-mark unhold {name} (dnf: dnf versionlock delete {name}), when its time has come.",
    ),
    "updates-pending": (
        "info",
        "{count} packages have updates that are not about security.",
        f"{UPDATE} update HOST",
    ),
    "updates-kept-back": (
        "info",
        "{count} updates are kept back, since they would remove or miss other packages.",
        "See what they want with `apt-get -s dist-upgrade`, and do it by hand.",
    ),
    "reboot-needed": (
        "warning",
        "The host must be started anew to run what is installed.",
        "Start it anew at a quiet time; SaveOS never does that by itself.",
    ),
    "restart-needed": ("warning", "{name} still runs code that an update replaced.", "{restart}"),
    "projects-left-out": ("info", "Not all directories were looked into.", "Name narrower roots."),
    "project-unreadable": (
        "info",
        "A project's lock file cannot be read.",
        "Make it again with the project's own tool.",
    ),
    "unpinned-libraries": (
        "info",
        "{count} libraries are not pinned to a version.",
        "Pin them (pip-compile, uv lock), so that what runs can be known.",
    ),
    "vulnerable-library": (
        "warning",
        "{name} has known weaknesses.",
        "Raise its version in the project, and deploy that.",
    ),
    "libraries-not-judged": (
        "info",
        "The libraries of {count} projects are listed, not judged.",
        "Let the host reach OSV or a copy of it (osv_url), or install pip-audit or npm there.",
    ),
    "agent-outdated": ("warning", "{name} is not the version that is offered.", "saveos agents update HOST"),
}


class Audit:
    """Gathers what is found on a host."""

    def __init__(self, params):
        self.params = params
        self.apply, self.only = wanted(params["apply"], params["fixes"])
        self.findings = Findings()
        self.summary = {"manager": "unknown", "apply": self.apply}
        self.packages = []
        self.changed = False
        self.failure = ""

    @property
    def applies(self):
        """Whether updates are to be installed."""
        return self.apply in APPLIED

    def find(self, kind, subject="", evidence="", *, grave=False, fixable=False, fixed=False, **words):
        """Note a finding of FOUND or AFTER; `grave` makes it critical."""
        severity, title, fix = FOUND.get(kind) or AFTER[kind]
        self.findings.add(
            kind,
            "critical" if grave else severity,
            title.format(**words),
            subject=subject,
            evidence=evidence,
            fix=fix.format(**words),
            fixable=fixable,
            fixed=fixed,
        )

    def fail(self, sentence):
        """Note why the host fails; the first reason stays."""
        self.failure = self.failure or sentence

    def result(self):
        """RESULT of the host, and packages with their versions before and after."""
        judged = None if self.applies else [*FOUND, "more"]
        return {**self.findings.result(self.summary, judged), "packages": self.packages[:MAX_PACKAGES]}


def wanted(apply, fixes):
    """What findings that are to be mended come to: (apply, names of packages or None for all)."""
    kinds = {each.partition(":")[0] for each in fixes}
    if "update-interrupted" in kinds:
        return "repair", None
    if "updates-pending" in kinds:
        return "all", None
    names = {each.partition(":")[2] for each in fixes if each.startswith("security-update:")}
    return ("security", names) if names else (apply, None)


def find_manager(private):
    """apt or dnf of this host, or None for a package manager that is not known here."""
    if shutil.which("apt-get") and shutil.which("dpkg-query") and os.path.exists("/var/lib/dpkg/status"):
        return dependencies_apt.Apt(private)
    if shutil.which("dnf") and shutil.which("rpm"):
        return dependencies_dnf.Dnf(private)
    return None


def look_at_packages(audit, manager, check_mode):
    """Report on the operating system's packages, and apply what was asked for."""
    audit.summary["manager"] = manager.name
    broken = report_interrupted(audit, manager)
    if broken and audit.apply == "repair":
        repair(audit, manager, check_mode)
    elif broken and audit.applies:
        audit.fail(
            "an earlier update was interrupted, so nothing was installed: run "
            f"`{manager.repair_command}` on the host, or `{UPDATE} repair HOST`"
        )
    # lists are left as they are where an interrupted update waits for a person
    errors = manager.refresh() if audit.params["refresh"] and (manager.private or not broken) else []
    if errors:
        audit.find("package-lists-unreachable", evidence="\n".join(errors))
    pending, held = manager.pending(), manager.held()
    plan, why = manager.plan(audit.apply if audit.applies else "all", pending, held, audit.only)
    if why:
        audit.find("plan-failed", evidence=why)
    advised = advisories(audit, manager, [each for each in pending if each["security"]])
    before = manager.versions()
    if audit.applies and not check_mode and not audit.failure:
        if why:
            audit.fail(f"the package manager finds no way to update: {why[:500]}")
        elif plan:
            update(audit, manager, manager.command(audit.apply, pending, held, audit.only))
        else:
            examine_after(audit, dependencies_health.failed_units())
    after = manager.versions()
    changes = {name: (before.get(name, ""), now) for name, now in after.items() if before.get(name) != now}
    changes = changes if audit.applies else {}
    audit.packages = judge_packages(pending, held, plan, advised, changes)
    again = [each for each in (manager.pending() if changes else ()) if each["name"] in changes]
    audit.packages += judge_packages(again, held, {}, {}, {})
    describe(audit, would=audit.applies and check_mode and not audit.failure)
    if changes:
        report_installed(audit, plan, changes)
    audit.summary["planned"] = len(plan)
    audit.summary["updated"] = len(changes)


def report_interrupted(audit, manager):
    """Note an interrupted update or broken dependencies; returns what is wrong, "" where nothing is."""
    if told := manager.interrupted():
        audit.find("update-interrupted", evidence=told, repair=manager.repair_command, fixable=True)
    elif told := manager.broken():
        audit.find("dependencies-unmet", evidence=told)
    return told


def repair(audit, manager, check_mode):
    """End an interrupted update."""
    audit.changed = True
    words, code, left = "", 0, ""
    if not check_mode:
        code, words = carry_out(manager.repair(), manager.environment, audit.params["timeout"])
        left = manager.interrupted()
    if left:
        audit.fail(f"`{manager.repair_command}` ended with {code} and did not mend it: {words[-800:]}")
        return
    audit.find("update-interrupted", evidence=words, repair=manager.repair_command, fixable=True, fixed=True)


def advisories(audit, manager, security):
    """CVE ids and severity of security updates, {package: (ids, severity)}, by what can be asked."""
    found = manager.advisories([(each["name"], each["before"], each["security"]) for each in security])
    sources = [manager.advisory_source] if found or not security else []
    missing = [each["name"] for each in security if not found.get(each["name"], ((), ""))[0]]
    names = manager.osv_names(missing) if missing and audit.params["online"] else {}
    if names:
        pairs = sorted({pair[1:] for pair in names.values()})
        ecosystem = next(iter(names.values()))[0]
        try:
            told = dependencies_projects.ask_osv(audit.params["osv_url"], ecosystem, pairs)
        except dependencies_projects.Unreachable as error:
            sources = sources or [f"none reachable ({str(error)[:120]})"]
        else:
            sources.append("OSV")
            for name, (_, *pair) in names.items():
                found[name] = dependencies_projects.gather(told.get(tuple(pair), ()))
    audit.summary["cve_source"] = " and ".join(sources) or "none"
    return found


def update(audit, manager, command):
    """Install what was planned, and examine the host before and after."""
    failed_before = dependencies_health.failed_units()
    if ill := examine(audit, failed_before):
        audit.fail(f"nothing was installed, since the host is not well before the update: {ill}")
        return
    code, words = carry_out(command, manager.environment, audit.params["timeout"])
    if code:
        busy = manager.is_busy(words)
        audit.find("package-manager-busy" if busy else "update-failed", evidence=words[-MAX_WORDS:])
        audit.fail(f"the update ended with {code}: {words.strip()[-600:]}")
        report_interrupted(audit, manager)
    examine_after(audit, failed_before)


def examine(audit, failed_before):
    """What is not well about the host now, as one text; notes a finding for each."""
    params = audit.params
    found = dependencies_health.examine(
        params["health_units"], params["health_url"], failed_before, params["health_directory"]
    )
    for subject, sentence, evidence in found:
        audit.find("health-check-failed", subject, evidence, sentence=sentence)
    audit.summary["healthy"] = not found
    return " ".join(f"{sentence} {evidence[:300]}".strip() for _, sentence, evidence in found)


def examine_after(audit, failed_before):
    """Examine the host after an update; one that is not well fails."""
    if ill := examine(audit, failed_before):
        audit.fail(f"the host is not well after the update, so the hosts after it are left alone: {ill}")


def carry_out(command, environment, timeout):
    """Run an installation so that a lost connection does not break it: (exit status, the end of its words).

    It has a session and a log of its own, and goes on when nobody waits any more.
    """
    os.makedirs(LOGS, mode=0o700, exist_ok=True)
    clean = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    with open(LOG, "ab") as log:
        begun = log.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**clean, **environment},
            start_new_session=True,
            cwd="/",
        )
    try:
        code = process.wait(timeout=timeout)
    except subprocess.TimeoutExpired:
        return 124, f"it still runs after {timeout} s, and goes on; see {LOG}"
    with open(LOG, "rb") as log:
        log.seek(max(begun, os.path.getsize(LOG) - 8000))
        return code, log.read().decode("utf-8", "replace")


def judge_packages(pending, held, plan, advised, changes):
    """What was, is or would be updated: [{name, before, after, security, state, origin, cves, severity}].

    `state` is installed, held, planned, waiting (not in this plan's scope) or kept back.
    """
    planned = {name.partition(":")[0] for name in plan}
    found = []
    for each in pending:
        name, security = each["name"], each["security"]
        now = changes.get(name, ("", ""))[1]
        ids, grade = advised.get(name, ((), ""))
        if now:
            state = "installed"
        elif name in held:
            state = "held"
        else:
            state = "planned" if name.partition(":")[0] in planned else "kept back"
        found.append(
            {
                "name": name,
                "before": each["before"],
                "after": now or (plan.get(name) or each["after"]),
                "security": security,
                "state": state,
                "origin": each["origin"],
                "cves": list(ids)[:50],
                "severity": grade,
            }
        )
    return found


def describe(audit, would):
    """Findings about packages; `would` is for check mode, where they count as mended by the plan."""
    waiting, back = [], []
    for each in audit.packages:
        name, state = each["name"], each["state"]
        done = state == "installed" or (would and state == "planned")
        words = f"{name} {each['before']} → {each['after']} ({each['origin'] or 'source unnamed'})"
        if each["security"]:
            told = [words, ", ".join(each["cves"]) or "no CVE id is known", each["severity"]]
            kind = "held-security-update" if state == "held" else "security-update"
            grave, evidence = each["severity"] in GRAVE, "; ".join(filter(None, told))
            audit.find(kind, name, evidence, grave=grave, fixable=state != "held", fixed=done, name=name)
        elif state == "held":
            audit.find("held-update", name, words, name=name)
        elif state != "installed":
            # a plan for security alone says nothing of whether others could be installed
            (back if state == "kept back" and audit.apply != "security" else waiting).append(words)
    if waiting:
        mended = would and audit.apply == "all"
        text = "; ".join(waiting)
        audit.find("updates-pending", evidence=text, count=len(waiting), fixable=True, fixed=mended)
    if back:
        audit.find("updates-kept-back", evidence="; ".join(back), count=len(back))
    left = [each for each in audit.packages if each["state"] != "installed"]
    audit.summary["pending"] = len(left)
    audit.summary["security"] = sum(1 for each in left if each["security"])
    audit.summary["held"] = sum(1 for each in left if each["state"] == "held")
    audit.summary["cves"] = len({cve for each in left for cve in each["cves"]})


def report_installed(audit, plan, changes):
    """Note what was installed, and where that is not what was planned."""
    audit.changed = True
    words = [f"{name} {was or 'new'} → {now}" for name, (was, now) in sorted(changes.items())]
    audit.find("updates-installed", evidence="; ".join(words), count=len(changes), fixed=True)
    found = {name.partition(":")[0]: now for name, (_, now) in changes.items()}
    wrong = [
        f"{name}: planned {version}, found {found.get(name.partition(':')[0], 'nothing new')}"
        for name, version in sorted(plan.items())
        if found.get(name.partition(":")[0]) != version
    ]
    if wrong:
        audit.find("not-as-planned", evidence="; ".join(wrong))


def look_at_processes(audit, manager):
    """Report what must be started anew."""
    reason = dependencies_health.reboot_reason(manager.kernel() if manager else "")
    outdated = dependencies_health.outdated_processes()
    if reason:
        audit.find("reboot-needed", evidence=reason)
    for name, paths in sorted(outdated.items()):
        how = f"Start {name} anew."
        if name == "init":
            how = "systemctl daemon-reexec"
        elif name.endswith(".service"):
            how = f"systemctl restart {name}"
        audit.find("restart-needed", name, ", ".join(paths), name=name, restart=how)
    audit.summary["reboot"] = bool(reason)
    audit.summary["restarts"] = len(outdated)


def look_at_projects(audit):
    """Report on the libraries that language projects pin."""
    projects = dependencies_projects
    found, whole = projects.find_projects(audit.params["roots"], OWN)
    sources, unjudged, offline, vulnerable = set(), [], {}, 0
    if not whole:
        audit.find("projects-left-out", evidence=f"{len(found)} files were found before the limit")
    for path, kind in found:
        try:
            text, pinned, loose = projects.read_project(path, kind)
        except ValueError as error:
            audit.find("project-unreadable", path, error)
            continue
        if loose:
            audit.find("unpinned-libraries", path, ", ".join(loose), count=len(loose))
        if kind == "other":
            unjudged.append(f"{path}: this kind of lock file is not read")
        if not pinned:
            continue
        try:
            if kind in offline:
                raise projects.Unreachable(offline[kind])
            told, skipped, source = projects.audit(
                kind, text, pinned, audit.params["osv_url"] if audit.params["online"] else ""
            )
        except projects.Unreachable as error:
            offline[kind] = str(error)
            unjudged.append(f"{path}: " + ", ".join(f"{name} {version}" for name, version in pinned))
            continue
        sources.add(source)
        if skipped:
            unjudged.append(f"{path}: {source} does not know {', '.join(skipped)}")
        vulnerable += report_vulnerable(audit, path, dict(pinned), told)
    if unjudged:
        why = [f"No advisory source could be asked about {kind}: {why}" for kind, why in offline.items()]
        audit.find("libraries-not-judged", evidence="\n".join(why + unjudged), count=len(unjudged))
    audit.summary["projects"], audit.summary["vulnerable"] = len(found), vulnerable
    audit.summary["advisories"] = ", ".join(sorted(sources)) or ("none" if found else "not needed")


def report_vulnerable(audit, path, versions, advised):
    """Note each vulnerable library of a project; returns how many there are."""
    for (name, version), entries in sorted(advised.items()):
        levels = {each["severity"] for each in entries}
        worst = next((level for level in reversed(dependencies_projects.LEVELS) if level in levels), "")
        told = [f"{version or versions.get(name, '')}: {worst or 'severity unknown'}"]
        for each in entries:
            mended = f" (fixed in {each['fixed']})" if each["fixed"] else ""
            told.append(" ".join(each["ids"][:4]) + mended)
        audit.find(
            "vulnerable-library", f"{path}: {name}", "; ".join(told), grave=worst == "critical", name=name
        )
    return len(advised)


def look_at_agent(audit):
    """Report programs of SaveOS that are not what provisioning would install."""
    for name, version in sorted(audit.params["offered"].items()):
        found = own_version(name)
        if found:
            audit.summary[name] = found
        if found and version and found != version:
            audit.find("agent-outdated", name, f"{found} is installed, {version} is offered", name=name)


def own_version(name):
    """Version of the agent, borg or borgmatic here; empty where it is not installed."""
    places = {
        "agent": dependencies_health.AGENTS,
        "borg": ("/opt/saveos/bin/borg", "/usr/local/bin/borg"),
        "borgmatic": ("/opt/saveos/bin/borgmatic", "/usr/local/bin/borgmatic"),
    }
    for path in places.get(name, ()):
        if os.path.exists(path):
            words = run([path, "--version"], timeout=120).stdout.split()  # a busy host takes its time
            return words[-1] if words else ""
    return ""


def main():
    module = AnsibleModule(
        argument_spec={
            "apply": {"type": "str", "choices": ["none", "security", "all", "repair"], "default": "none"},
            "fixes": {"type": "list", "elements": "str", "default": []},
            "refresh": {"type": "bool", "default": True},
            "online": {"type": "bool", "default": True},
            "osv_url": {"type": "str", "default": "https://api.osv.dev"},
            "roots": {"type": "list", "elements": "path", "default": []},
            "health_units": {"type": "list", "elements": "str", "default": []},
            "health_url": {"type": "str", "default": ""},
            "health_directory": {"type": "path", "default": dependencies_health.CHECKS},
            "timeout": {"type": "int", "default": 7200},
            "offered": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="this needs root on the host: set `become: true`")
    audit = Audit(module.params)
    manager = find_manager(module.check_mode or audit.apply == "none")
    if manager is None:
        audit.find("package-manager-unknown", evidence=(read("/etc/os-release") or "no /etc/os-release")[:500])
        if audit.apply != "none":
            audit.fail("the host's package manager is not known (apt and dnf are), so nothing was installed")
    else:
        with manager:
            look_at_packages(audit, manager, module.check_mode)
    look_at_processes(audit, manager)
    look_at_projects(audit)
    look_at_agent(audit)
    told = {"dependencies": audit.result()}
    planned = module.check_mode and audit.applies and audit.summary.get("planned", 0) > 0
    if audit.failure:
        module.fail_json(msg=audit.failure, changed=audit.changed, saveos=told)
    module.exit_json(changed=audit.changed or planned, saveos=told)


if __name__ == "__main__":
    main()
