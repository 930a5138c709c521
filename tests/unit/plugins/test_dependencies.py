"""What package managers, lock files and advisory sources say, read as data. The outputs are captured ones."""

import http.server
import json
import re
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible_collections.saveos.fleet.plugins.action import dependencies as action
from ansible_collections.saveos.fleet.plugins.module_utils import (
    dependencies_apt as apt,
)
from ansible_collections.saveos.fleet.plugins.module_utils import (
    dependencies_dnf as dnf,
)
from ansible_collections.saveos.fleet.plugins.module_utils import (
    dependencies_health as health,
)
from ansible_collections.saveos.fleet.plugins.module_utils import (
    dependencies_projects as projects,
)
from ansible_collections.saveos.fleet.plugins.modules import dependencies

# Debian 12, apt 2.6: `apt-cache policy`
SOURCES = """Package files:
 100 /var/lib/dpkg/status
     release a=now
 500 http://mirror.example.net/debian-security bookworm-security/main amd64 Packages
     release v=12,o=Debian,a=oldstable-security,n=bookworm-security,l=Debian-Security,c=main,b=amd64
     origin mirror.example.net
 500 http://mirror.example.net/debian bookworm/main amd64 Packages
     release v=12.15,o=Debian,a=oldstable,n=bookworm,l=Debian,c=main,b=amd64
     origin mirror.example.net
Pinned packages:
"""
# `apt-cache policy needrestart bash gone phased down`
POLICY = """needrestart:
  Installed: 3.6-4+deb12u2
  Candidate: 3.6-4+deb12u4
  Version table:
     3.6-4+deb12u4 500
        500 http://mirror.example.net/debian-security bookworm-security/main amd64 Packages
     3.6-4+deb12u3 500
        500 http://mirror.example.net/debian bookworm/main amd64 Packages
 *** 3.6-4+deb12u2 100
        100 /var/lib/dpkg/status
bash:
  Installed: 5.2.15-2+b8
  Candidate: 5.2.15-2+b13
  Version table:
     5.2.15-2+b13 500
        500 http://mirror.example.net/debian bookworm/main amd64 Packages
 *** 5.2.15-2+b8 100
        100 /var/lib/dpkg/status
gone:
  Installed: (none)
  Candidate: 1.0
  Version table:
     1.0 500
        500 http://mirror.example.net/debian bookworm/main amd64 Packages
openssl:
  Installed: 1.0
  Candidate: 1.2
  Version table:
     1.2 500 (phased 20%)
        500 http://mirror.example.net/debian bookworm/main amd64 Packages
     1.1 500
        500 http://mirror.example.net/debian-security bookworm-security/main amd64 Packages
 *** 1.0 100
        100 /var/lib/dpkg/status
down:
  Installed: 2.0
  Candidate: 1.0
  Version table:
 *** 2.0 100
        100 /var/lib/dpkg/status
     1.0 1001
       1001 http://mirror.example.net/debian bookworm/main amd64 Packages
"""
PLAN = """Reading package lists...
The following packages have been kept back:
  heldback heldsafe wants
2 upgraded, 0 newly installed, 0 to remove and 3 not upgraded.
Inst libsafe [1.0+deb1] (1.2 Lab:stable [all])
Inst libc6 [2.36-9+deb12u7] (2.36-9+deb12u8 Debian:12.8/stable, Debian-Security:12/s [amd64]) [libc6:amd64 ]
Inst fresh (1.0 Debian:12.8/stable [amd64])
Remv old [1.0]
Conf libsafe (1.2 Lab:stable [all])
"""
# dpkg-query on a host whose update was killed in a postinst
INSTALLED = (
    "adduser\t3.134\tii \tadduser\t3.134\n"
    "plain\t1.5\tiF \tplain\t1.5\n"
    "man-db\t2.11\tit \tman-db\t2.11\n"
    "heldback\t1.0\thi \theldback\t1.0\n"
    "ancient\t1.0\trc \tancient\t1.0\n"
    "broken\t1.0\tiHR\tbroken\t1.0\n"
    "libssl3:amd64\t3.0.15-1~deb12u1\tii \topenssl\t3.0.15-1~deb12u1\n"
)
CHANGELOG = """libsafe (1.0+deb1) security; urgency=high

  * CVE-2026-0001: fix; also CVE-2026-0002

 -- Lab <l@example.org>  Mon, 01 Jan 2026 00:00:00 +0000

libsafe (1.0) stable; urgency=emergency

  * CVE-2020-9999
"""
# dnf 4.14 on Debian 12, with a local repository that has advisories
RPMS = "gamma.noarch\t1.0-1\nbeta.noarch\t1:2.0-1\nalpha.noarch\t1.0-1\ngpg-pubkey.(none)\t1-1\n"
UPGRADES = "alpha.noarch\t1.1-1\tlocal\n\nbeta.noarch\t2.1-3\tlocal\n\ngamma.noarch\t0:1.2-1\tlocal\n\n"
UPDATEINFO = """TEST-2026:0001 Important/Sec. alpha-1.1-1.noarch
TEST-2026:0003 Moderate/Sec.  gamma-1.2-1.noarch
"""
UPDATEINFO_CVES = """CVE-2026-11111 Important/Sec. alpha-1.1-1.noarch
CVE-2026-22222 Important/Sec. alpha-1.1-1.noarch
CVE-2026-33333 Moderate/Sec.  gamma-1.2-1.noarch
"""
DNF_PLAN = """Last metadata expiration check: 0:00:28 ago on Mon Nov 23 08:16:08 2026.
Dependencies resolved.
================================================================================
 Package           Architecture       Version           Repository         Size
================================================================================
Upgrading:
 alpha             noarch             1.1-1             local             5.9 k
 beta              noarch             2.1-3             local             5.9 k
Removing:
 old               noarch             1.0-1             @local            5.9 k

Transaction Summary
================================================================================
Upgrade  2 Packages

Total size: 12 k
Operation aborted.
"""


def test_apt_tells_pending_and_security_by_the_release_labels():
    sources = apt.parse_sources(SOURCES)
    pending = {each["name"]: each for each in apt.judge(apt.parse_policy(POLICY), sources)}
    assert set(pending) == {"needrestart", "bash", "openssl"}  # neither what is gone nor a downgrade
    assert pending["needrestart"]["security"] == pending["needrestart"]["after"] == "3.6-4+deb12u4"
    assert pending["needrestart"]["origin"] == "Debian-Security"
    assert (pending["bash"]["security"], pending["bash"]["origin"]) == ("", "Debian")
    # the candidate came later, from elsewhere; the security source's version is what security needs
    assert (pending["openssl"]["after"], pending["openssl"]["security"]) == ("1.2", "1.1")


@pytest.mark.parametrize(
    ("release", "safe"),
    [
        ({"l": "Debian-Security"}, True),
        ({"o": "Ubuntu", "l": "Ubuntu", "a": "jammy-security"}, True),
        ({"o": "UbuntuESM", "a": "jammy-infra"}, True),
        ({"l": "Debian", "a": "stable-updates"}, False),
        ({}, False),
    ],
)
def test_a_security_source_is_known_by_its_label_or_suite(release, safe):
    assert apt.is_security(release) is safe


def test_apt_plan_is_what_would_be_installed_and_removed():
    install, remove = apt.parse_plan(PLAN)
    assert install == {"libsafe": "1.2", "libc6": "2.36-9+deb12u8", "fresh": "1.0"}
    assert remove == {"old": "1.0"}


def test_interrupted_packages_are_found_and_others_are_not():
    installed = apt.parse_installed(INSTALLED)
    assert apt.unfinished(installed) == ["broken", "man-db", "plain"]
    assert installed["libssl3:amd64"]["source"] == "openssl"
    assert not apt.is_installed(installed["ancient"]["status"])


def test_changelog_is_read_down_to_the_installed_version():
    assert apt.parse_changelog(CHANGELOG, "1.0") == (["CVE-2026-0001", "CVE-2026-0002"], "high")
    assert apt.parse_changelog(CHANGELOG, "0.9") == (
        ["CVE-2020-9999", "CVE-2026-0001", "CVE-2026-0002"],
        "emergency",
    )
    assert apt.parse_changelog("nonsense", "1") == ([], "")


def test_apt_configuration_of_a_look_keeps_proxies_and_drops_hooks():
    dump = (
        'Acquire::http::Proxy "http://proxy";\nAPT::Update::Post-Invoke-Success:: "touch /x";\n'
        'DPkg::Post-Invoke:: "rm /y";\nDir::State::lists "lists/";\n'
    )
    lines = apt.private_settings(dump, "/scratch").splitlines()
    assert 'Acquire::http::Proxy "http://proxy";' in lines
    assert not any("Invoke" in line for line in lines)
    assert lines.index('Dir::State::lists "/scratch/lists";') > lines.index('Dir::State::lists "lists/";')


def test_apt_security_command_names_versions_and_leaves_held_packages_out():
    pending = [
        {"name": "a", "before": "1", "after": "3", "security": "2", "origin": ""},
        {"name": "b", "before": "1", "after": "2", "security": "2", "origin": ""},
        {"name": "c", "before": "1", "after": "2", "security": "", "origin": ""},
    ]
    manager = apt.Apt(private=True)
    command = manager.command("security", pending, {"b"})
    assert command[-4:] == ["install", "--only-upgrade", "--no-remove", "a=2"]
    assert manager.plan("security", pending, {"a", "b"}) == ({}, "")
    assert manager.command("all", pending, set())[-2:] == ["upgrade", "--with-new-pkgs"]


def test_dnf_tells_pending_advisories_and_locks():
    assert dnf.parse_installed(RPMS) == {
        "gamma.noarch": "1.0-1",
        "beta.noarch": "1:2.0-1",
        "alpha.noarch": "1.0-1",
    }
    assert dnf.parse_pending(UPGRADES)["gamma.noarch"] == ("1.2-1", "local")
    assert len(dnf.parse_pending(UPGRADES)) == 3
    assert dnf.parse_advisories(UPDATEINFO) == {
        "alpha.noarch": [("TEST-2026:0001", "Important", "1.1-1")],
        "gamma.noarch": [("TEST-2026:0003", "Moderate", "1.2-1")],
    }
    assert [each[0] for each in dnf.parse_advisories(UPDATEINFO_CVES)["alpha.noarch"]] == [
        "CVE-2026-11111",
        "CVE-2026-22222",
    ]
    assert dnf.parse_versionlock("Last metadata expiration check: 0:00:05 ago\ngamma-0:1.0-1.*\n") == {"gamma"}
    assert dnf.parse_plan(DNF_PLAN) == {"alpha.noarch": "1.1-1", "beta.noarch": "2.1-3"}


def test_dnf5_advisories_are_read_too():
    told = (
        "Name                   Type        Severity              Package                         Issued\n"
        "FEDORA-2026-1234567890 security    Important openssl-libs-1:3.2.2-3.fc40.x86_64 2026-01-01 00:00:00\n"
        "FEDORA-2026-0000000000 bugfix      None      bash-5.2.26-3.fc40.x86_64 2026-01-01 00:00:00\n"
    )
    assert dnf.parse_advisories(told) == {
        "openssl-libs.x86_64": [("FEDORA-2026-1234567890", "Important", "1:3.2.2-3.fc40")]
    }


def test_requirements_are_read_without_options_and_includes():
    text = (
        "--index-url http://evil\n-r /etc/shadow\nDjango==4.2.1 # web\n"
        "requests[socks] == 2.31.0 ; python_version > '3'\nflask>=2\nnumpy\n"
    )
    pinned, loose = projects.parse_requirements(text)
    assert pinned == [("django", "4.2.1"), ("requests", "2.31.0")]
    assert loose == ["flask", "numpy"]


def test_lock_files_are_read():
    poetry = '[[package]]\nname = "Jinja2"\nversion = "3.1.2"\n\n[[package]]\nname = "x_y"\nversion = "1"\n'
    assert projects.parse_toml_lock(poetry) == [("jinja2", "3.1.2"), ("x-y", "1")]
    new = {
        "lockfileVersion": 3,
        "packages": {
            "": {"name": "app"},
            "node_modules/lodash": {"version": "4.17.20"},
            "node_modules/@scope/a/node_modules/b": {"version": "2.0.0"},
            "node_modules/jest": {"version": "29.0.0", "dev": True},
            "node_modules/local": {"link": True, "version": "1.0.0"},
        },
    }
    assert projects.parse_package_lock(json.dumps(new)) == [("b", "2.0.0"), ("lodash", "4.17.20")]
    old = {"dependencies": {"a": {"version": "1.0.0", "dependencies": {"b": {"version": "2.0.0"}}}}}
    assert projects.parse_package_lock(json.dumps(old)) == [("a", "1.0.0"), ("b", "2.0.0")]
    assert projects.parse_pipfile('{"default": {"Flask": {"version": "==2.0"}, "x": {}}}') == [("flask", "2.0")]
    for broken in ("[]", "{", '"x"'):
        with pytest.raises(ValueError):
            projects.parse_package_lock(broken)


def test_projects_are_found_without_following_links_or_going_into_libraries(tmp_path: Path):
    root, outside = tmp_path / "srv", tmp_path / "outside"
    for directory in (root / "app", root / "app/node_modules/x", root / "own", outside):
        directory.mkdir(parents=True)
        (directory / "requirements.txt").write_text("a==1\n")
    (root / "link").symlink_to(outside)
    (root / "app/package-lock.json").symlink_to(outside / "requirements.txt")
    (root / "app/yarn.lock").write_text("")
    found, whole = projects.find_projects([str(root), str(tmp_path / "none")], [str(root / "own")])
    assert found == [(str(root / "app/requirements.txt"), "python"), (str(root / "app/yarn.lock"), "other")]
    assert whole
    with pytest.raises(ValueError, match="no plain file"):
        projects.read_project(str(root / "app/package-lock.json"), "node")  # it became a link meanwhile
    (root / "app/Pipfile.lock").write_text("{")
    with pytest.raises(ValueError, match="it is broken"):
        projects.read_project(str(root / "app/Pipfile.lock"), "python")


def test_audit_tools_are_read():
    weakness = {"id": "PYSEC-1", "fix_versions": ["1.0"], "aliases": ["CVE-1"]}
    told = {
        "dependencies": [
            {"name": "flask", "version": "0.5", "vulns": [weakness]},
            {"name": "fine", "version": "1", "vulns": []},
            {"name": "own", "skip_reason": "Dependency not found on PyPI and could not be audited: own (1)"},
        ]
    }  # fmt: skip
    found, skipped = projects.parse_pip_audit(json.dumps(told))
    assert found == {("flask", "0.5"): [{"ids": ["CVE-1", "PYSEC-1"], "severity": "", "fixed": "1.0"}]}
    assert skipped == ["own"]
    told = {
        "vulnerabilities": {
            "lodash": {"via": [{"url": "https://github.com/advisories/GHSA-x", "severity": "high"}]},
            "above": {"via": ["lodash"]},
        }
    }
    assert projects.parse_npm_audit(json.dumps(told)) == {
        ("lodash", ""): [{"ids": ["GHSA-x"], "severity": "high", "fixed": ""}]
    }
    with pytest.raises(KeyError):
        projects.parse_npm_audit('{"message": "request failed"}')


class Osv(http.server.BaseHTTPRequestHandler):
    """OSV that knows one weakness."""

    asked: ClassVar[list[Any]] = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        known = [
            {"vulns": [{"id": "GHSA-1"}]} if q["package"]["name"] == "jinja2" else {} for q in body["queries"]
        ]
        self._answer({"results": known})

    def do_GET(self):
        events = [{"introduced": "0"}, {"fixed": "3.1.3"}]
        self._answer(
            {
                "id": "GHSA-1",
                "aliases": ["CVE-2024-22195"],
                "database_specific": {"severity": "MEDIUM"},
                "affected": [{"ranges": [{"type": "ECOSYSTEM", "events": events}]}],
            }
        )

    def _answer(self, told):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def osv():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Osv)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_osv_is_asked_by_name_and_version(osv, monkeypatch):
    monkeypatch.setattr(projects.shutil, "which", lambda _: None)
    told, skipped, source = projects.audit("python", "", [("jinja2", "3.1.2"), ("fine", "1")], osv)
    assert (skipped, source) == ([], "OSV")
    assert told == {
        ("jinja2", "3.1.2"): [{"ids": ["CVE-2024-22195", "GHSA-1"], "severity": "moderate", "fixed": "3.1.3"}]
    }
    assert Osv.asked[-1]["queries"][0] == {
        "package": {"ecosystem": "PyPI", "name": "jinja2"},
        "version": "3.1.2",
    }
    assert projects.gather(told[("jinja2", "3.1.2")]) == (["CVE-2024-22195"], "moderate")


def test_unreachable_source_is_said_so(monkeypatch):
    monkeypatch.setattr(projects.shutil, "which", lambda _: None)
    with pytest.raises(projects.Unreachable, match=re.escape("127.0.0.1:9")):
        projects.audit("node", "{}", [("a", "1")], "http://127.0.0.1:9")
    with pytest.raises(projects.Unreachable, match="turned off"):
        projects.audit("node", "{}", [("a", "1")], "")


def test_processes_that_run_replaced_code():
    maps = "".join(
        f"7f000000{number}000-7f000000{number}fff {mode} 00002000 {inode}         {path}\n"
        for number, (mode, inode, path) in enumerate(
            (
                ("r-xp", "fe:00 260131", "/usr/lib/x86_64/libssl.so.3 (deleted)"),
                ("r--p", "fe:00 260132", "/usr/lib/x86_64/libz.so.1 (deleted)"),
                ("r-xp", "fe:00 260133", "/usr/bin/cat"),
                ("rwxp", "00:01 1024", "/memfd:jit (deleted)"),
                ("r-xp", "fe:00 77", "/tmp/x.so (deleted)"),
            )
        )
    )
    assert health.deleted_libraries(maps) == ["/usr/lib/x86_64/libssl.so.3"]
    assert health.unit_of("0::/system.slice/nginx.service\n") == "nginx.service"
    assert health.unit_of("0::/system.slice/system-getty.slice/getty@tty1.service/x\n") == "getty@tty1.service"
    assert health.unit_of("0::/user.slice/user-0.slice/user@0.service/init.scope\n") == ""


def test_own_checks_must_belong_to_root_alone(tmp_path: Path):
    for name, mode in (("good", 0o755), ("open", 0o777), ("text", 0o644), (".hidden", 0o755)):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to("/bin/true")
    good, refused = health.own_checks(str(tmp_path))
    owned = (tmp_path / "good").stat().st_uid == 0
    assert good == ([str(tmp_path / "good")] if owned else [])
    assert any("open is not run" in why for why in refused)
    assert health.own_checks(str(tmp_path / "none")) == ([], [])


@pytest.mark.parametrize(
    ("fixes", "wanted"),
    [
        ([], ("none", None)),
        (["security-update:libssl3:amd64"], ("security", {"libssl3:amd64"})),
        (["security-update:a", "updates-pending"], ("all", None)),
        (["update-interrupted", "updates-pending"], ("repair", None)),
        (["reboot-needed"], ("none", None)),
    ],
)
def test_findings_to_mend_decide_what_is_applied(fixes, wanted):
    assert dependencies.wanted("none", fixes) == wanted


class Audit(dependencies.Audit):
    """An audit with parameters of its own."""

    def __init__(self, **params: Any):
        super().__init__({"apply": "none", "fixes": [], **params})

    def found(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(each["id"], each["subject"]): each for each in self.result()["findings"]}


PENDING = [
    {"name": "held", "before": "1", "after": "2", "security": "2", "origin": "Debian-Security"},
    {"name": "safe", "before": "1", "after": "2", "security": "2", "origin": "Debian-Security"},
    {"name": "plain", "before": "1", "after": "2", "security": "", "origin": "Debian"},
    {"name": "stuck", "before": "1", "after": "2", "security": "", "origin": "Debian"},
]


def test_report_of_packages():
    audit = Audit()
    advised = {"safe": (["CVE-1"], "critical")}
    audit.packages = dependencies.judge_packages(PENDING, {"held"}, {"safe": "2", "plain": "2"}, advised, {})
    dependencies.describe(audit, would=False)
    found = audit.found()
    assert found["security-update", "safe"]["severity"] == "critical"
    assert "CVE-1" in found["security-update", "safe"]["evidence"]
    assert found["held-security-update", "held"]["severity"] == "warning"
    assert "plain 1 → 2" in found["updates-pending", ""]["evidence"]
    assert "stuck" in found["updates-kept-back", ""]["evidence"]
    assert not any(each["fixed"] for each in found.values())
    assert audit.summary == {
        "manager": "unknown", "apply": "none", "pending": 4, "security": 2, "held": 1, "cves": 1
    }  # fmt: skip
    assert "health-check-failed" not in audit.result()["judged"]


def test_check_mode_says_what_would_be_mended():
    audit = Audit(apply="security")
    audit.packages = dependencies.judge_packages(PENDING, {"held"}, {"safe": "2"}, {}, {})
    dependencies.describe(audit, would=True)
    found = audit.found()
    assert found["security-update", "safe"]["fixed"] and not found["held-security-update", "held"]["fixed"]
    assert "stuck" in found["updates-pending", ""]["evidence"]  # nobody asked whether it could be installed
    assert audit.result()["judged"] is None


def test_what_was_installed_is_compared_with_the_plan():
    audit = Audit(apply="all")
    changes = {"safe": ("1", "2"), "plain": ("1", "3"), "new:amd64": ("", "1")}
    audit.packages = dependencies.judge_packages(PENDING, {"held"}, {"safe": "2", "plain": "2"}, {}, changes)
    dependencies.describe(audit, would=False)
    dependencies.report_installed(audit, {"safe": "2", "plain": "2", "new": "1"}, changes)
    found = audit.found()
    assert found["security-update", "safe"]["fixed"]
    assert found["updates-installed", ""]["evidence"] == "new:amd64 new → 1; plain 1 → 3; safe 1 → 2"
    assert found["not-as-planned", ""]["evidence"] == "plain: planned 2, found 3"
    assert audit.changed


def test_action_plugin_knows_what_is_offered(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("SAVEOS_BUNDLE", raising=False)
    assert action.offered()["agent"]
    label = tmp_path / ".build/bundle/x.json"
    label.parent.mkdir(parents=True)
    label.write_text('{"borg": "1.4.5", "borgmatic": "2.1.10"}')
    assert action.offered(tmp_path) == {"borg": "1.4.5", "borgmatic": "2.1.10"}
