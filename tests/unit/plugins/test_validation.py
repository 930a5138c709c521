"""Checks of a host as functions: each fault alone, bad input, and nothing on what is well."""

import ast
import hashlib
import json
import os
import pwd
import stat
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible_collections.saveos.fleet.plugins.module_utils import (
    escrow,
    plain_yaml,
    validation_agent,
    validation_compose,
    validation_core,
    validation_host,
    validation_server,
)
from ansible_collections.saveos.fleet.plugins.modules import validation

ROOT = Path(__file__).resolve().parents[3]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEsYwHh5xS1nKzMNkqk2lF3yqf9U1zJbWcXq1b1a2c3d"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


def ids(found) -> list[str]:
    """Return the ids of findings, in their order."""
    return [each.kind for each in found]


# ---- findings, checks, mending


def test_every_finding_in_the_code_is_listed_with_its_kind():
    """Else a run of some kinds would leave it open, or close it unseen."""
    listed = {each for kinds in validation_core.IDS.values() for each in kinds} | set(validation_core.ALWAYS)
    used = set()
    for file in (ROOT / "plugins/module_utils").glob("validation_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                first = node.args[0]
                found = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
                used |= {each.value for each in found if isinstance(each, ast.Constant)}
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "attributes":
                used.add(node.args[0].value)
    assert used <= listed, used - listed
    assert len(listed) > 70


def test_a_check_that_breaks_or_hangs_loses_nothing():
    def breaks():
        yield validation_core.Finding("first", "info", "t", "f")
        raise RuntimeError("odd \x1b[31m")

    def hangs():
        yield validation_core.Finding("second", "info", "t", "f")
        time.sleep(40)

    checks = [validation_core.Check("one", breaks), validation_core.Check("two", hangs, 1)]
    began = time.monotonic()
    found = validation_core.run_checks(checks)
    assert time.monotonic() - began < 20
    assert ids(found) == ["first", "check-failed", "second", "check-timed-out"]
    assert "\\x1b" in found[1].evidence
    assert found[3].subject == "two"


def test_mending_rights_keeps_what_was_and_shows_it_in_check_mode(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o644)
    (found,) = validation_core.attributes("secret-permissions", str(secret), 0o600, os.getuid(), os.getgid())
    dry = validation_core.Mender(check_mode=True, backups=str(tmp_path / "kept"))
    assert validation_core.mend([found], ["all"], dry) == [found]
    assert (stat.S_IMODE(secret.stat().st_mode), dry.changed) == (0o644, True)
    assert "0644" in dry.diffs[0]["before"]
    assert not (tmp_path / "kept").exists()
    real = validation_core.Mender(check_mode=False, backups=str(tmp_path / "kept"))
    assert validation_core.mend([found], [f"secret-permissions:{secret}"], real) == [found]
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    (notes,) = (tmp_path / "kept").glob("*/changes.json")
    assert "0644" in json.loads(notes.read_text())[0]["was"]
    assert list(validation_core.attributes("k", str(secret), 0o600, os.getuid(), os.getgid())) == []


def test_a_link_in_place_of_a_secret_is_told_and_never_followed(tmp_path):
    target = tmp_path / "shadow"
    target.write_text("x")
    target.chmod(0o644)
    link = tmp_path / "token"
    link.symlink_to(target)
    (found,) = validation_core.attributes("secret-permissions", str(link), 0o600, os.getuid(), os.getgid())
    assert (found.kind, found.mend) == ("secret-link", None)
    mender = validation_core.Mender(check_mode=False, backups=str(tmp_path / "kept"))
    with pytest.raises(OSError):
        mender.attributes(str(link), 0o600, os.getuid(), os.getgid())
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


def test_only_wanted_findings_are_mended_and_a_failure_is_told():
    def fails(_mender):
        raise OSError("no")

    one = validation_core.Finding("one", "info", "t", "f", "a", mend=fails)
    two = validation_core.Finding("two", "info", "t", "f", mend=lambda _mender: None)
    mender = validation_core.Mender(check_mode=False)
    assert validation_core.mend([one, two], ["one:b"], mender) == []
    assert validation_core.mend([one, two], ["all"], mender) == [two]
    assert "Mending failed: no" in one.evidence


def test_a_run_of_some_kinds_says_what_it_looked_for():
    every = {"kinds": ["config", "setup", "compose"], "roots": ["/srv"]}
    assert validation.judged(every) is None
    some = validation.judged({"kinds": ["config", "compose"], "roots": []})
    assert "config-invalid" in some
    assert "disk-full" not in some
    assert "env-invalid" not in some


# ---- the agent


@pytest.fixture
def agent(tmp_path):
    """A host's configuration with one repository, all in place."""
    etc = tmp_path / "etc"
    (etc / "repositories/r1").mkdir(parents=True)
    for name in ("passphrase", "key-export", "initialised"):
        (etc / "repositories/r1" / name).write_text("word\n")
    told = {
        "repositories": [{"id": "r1", "kind": "local", "url": "/srv/r1"}],
        "state_dir": str(tmp_path / "state"),
    }
    (etc / "agent.json").write_text(json.dumps(told))
    return validation_agent.Agent(str(etc), "/nowhere", [{"id": "r1", "quota": "1G"}])


def test_a_host_that_is_not_configured_is_one_finding(tmp_path):
    for text in (None, "", "[]", "{", '{"repositories": 1}'):
        if text is not None:
            (tmp_path / "agent.json").write_text(text)
        agent = validation_agent.Agent(str(tmp_path), "/nowhere", [])
        (check,) = validation_agent.config_checks(agent)
        assert ids(validation_core.run_checks([check])) == ["agent-not-configured"], text


def test_sources_are_there_hold_something_and_are_not_excluded(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    full, empty, gone = (str(tmp_path / name) for name in ("full", "empty", "gone"))
    config: dict[str, Any] = {"source_directories": [full, empty, gone, f"{tmp_path}/f*"]}
    found = list(validation_agent.sources(config, "c"))
    assert [(each.kind, each.subject) for each in found] == [("source-empty", empty), ("source-missing", gone)]
    for pattern in (f"pp:{tmp_path}", full, f"{tmp_path}/*", f"fm:{full}*", f"pf:{full}"):
        found = validation_agent.sources({"source_directories": [full], "exclude_patterns": [pattern]}, "c")
        assert ids(found) == ["source-excluded"], pattern
    for pattern in ("*.tmp", f"pp:{full}/file", f"re:^{full}$", "pp:/other"):
        found = validation_agent.sources({"source_directories": [full], "exclude_patterns": [pattern]}, "c")
        assert ids(found) == [], pattern
    assert ids(validation_agent.sources({}, "c")) == ["source-none"]
    assert ids(validation_agent.sources({"postgresql_databases": []}, "c")) == []


def test_secrets_must_be_there(agent):
    assert ids(validation_agent.missing_secrets(agent)) == []
    Path(f"{agent.etc}/repositories/r1/passphrase").write_text("")
    assert ids(validation_agent.missing_secrets(agent)) == ["secret-missing"]


def test_escrow_holds_the_present_passphrase(agent):
    (each,) = agent.repositories
    assert ids(validation_agent.escrow(agent, each, "web1", "KEY")) == ["escrow-missing"]
    text = escrow.material(agent.etc, "web1", validation_agent.complete(each))
    digest = hashlib.sha256(f"KEY\n{text}".encode()).hexdigest()
    sealed = {"digest": digest, "recovery_key": "k", "sealed": "s"}
    Path(f"{agent.etc}/repositories/r1/sealed").write_text(json.dumps(sealed))
    assert ids(validation_agent.escrow(agent, each, "web1", "KEY")) == []
    Path(f"{agent.etc}/repositories/r1/passphrase").write_text("another\n")
    assert ids(validation_agent.escrow(agent, each, "web1", "KEY")) == ["escrow-stale"]


def test_retention_must_fit_into_the_quota(agent):
    (each,) = agent.repositories
    Path(f"{agent.etc}/borgmatic").mkdir()
    Path(each["config"]).write_text("keep_daily: 7\nkeep_within: 3d\n")
    runs = Path(agent.state) / "runs"
    runs.mkdir(parents=True)
    for number in range(3):
        archive = {"name": f"a{number}", "deduplicated_size": 100_000_000}
        record = {"results": [{"repository_id": "r1", "archive": archive}]}
        (runs / f"{number}.json").write_text(json.dumps(record))
    stats = {"cache": {"stats": {"unique_csize": 300_000_000}}}
    assert ids(validation_agent.fits(agent, each, stats)) == []
    assert validation_agent.history(agent, each) == (100_000_000, 10, 3)
    stats["cache"]["stats"]["unique_csize"] = 400_000_000
    (found,) = validation_agent.fits(agent, each, stats)
    assert (found.kind, found.severity) == ("retention-space", "warning")
    assert ids(validation_agent.retention({}, "c")) == ["retention-none"]
    assert ids(validation_agent.retention({"keep_daily": 7}, "c")) == []


def test_a_repository_that_does_not_open_says_why():
    def kind(code, sentence):
        return validation_agent.failure({"id": "r1"}, SimpleNamespace(code=code, sentence=sentence)).kind

    assert kind("PassphraseWrong", "x") == "passphrase-wrong"
    assert kind("", "the storage server shows another SSH host key than the one pinned") == "server-host-key"
    assert kind("", "the storage server refuses this host's SSH key: run it") == "server-refuses-key"
    assert kind("Repository.DoesNotExist", "x") == "repository-missing"
    assert kind("ConnectionClosed", "nothing listens") == "repository-unreachable"


# ---- any host


def test_clocks_are_compared_where_the_time_is_told(monkeypatch):
    monkeypatch.setattr(validation_host, "synchronised", lambda: True)
    assert ids(validation_host.clock(0, 1000)) == []
    assert ids(validation_host.clock(1000, 1030)) == []
    (slow,) = validation_host.clock(1000, 900)
    (wrong,) = validation_host.clock(1000, 2000)
    assert (slow.severity, slow.evidence, wrong.severity) == ("warning", "-100 s", "critical")
    monkeypatch.setattr(validation_host, "synchronised", lambda: False)
    monkeypatch.setattr(validation_host, "in_container", lambda: False)
    assert ids(validation_host.clock(0, 0)) == ["clock-unsynchronised"]


def test_ends_of_certificates():
    def kind(days):
        return ids(validation_host.ending("tls-certificate", "f", 1000 + days * 86400, "fix", now=1000))

    assert (kind(20), kind(13), kind(-1)) == ([], ["tls-certificate-ends"], ["tls-certificate-expired"])


def test_what_is_no_certificate_is_said(tmp_path):
    (tmp_path / "cert.pem").write_text("nothing")
    places = [str(tmp_path), "/no/such/file", validation_host.USUAL + "-not"]
    assert ids(validation_host.tls_certificates(places)) == ["tls-certificate-unreadable"] * 3
    assert ids(validation_host.tls_certificates([])) == []


def test_addresses_need_no_resolver(monkeypatch):
    monkeypatch.setattr(validation_host, "resolves", lambda name: name == "good")
    monkeypatch.setattr(
        validation_host, "read", lambda path: "nameserver ::1\n" if "resolv" in path else "1 own\n"
    )
    monkeypatch.setattr(validation_host.socket, "gethostname", lambda: "own")
    found = list(validation_host.names(["10.0.0.1", "::1", "good", "bad", "bad", ""]))
    assert [(each.kind, each.subject) for each in found] == [("dns-fails", "bad")]


# ---- a storage server


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A storage server's directories, whose user is who runs this test."""
    own = pwd.getpwuid(os.getuid())
    (tmp_path / ".ssh").mkdir()
    entry = SimpleNamespace(pw_dir=str(tmp_path), pw_uid=own.pw_uid, pw_gid=own.pw_gid)
    monkeypatch.setattr(validation_server.pwd, "getpwnam", lambda name: entry)
    declared = [{"id": "r1", "quota": "5G", "public_key": KEY, "append_only": True}]
    return validation_server.Server("saveos-borg", str(tmp_path), "/opt/borg", declared, complete=True)


def lines(server, *texts):
    """Write authorized_keys and return what is found about its lines."""
    Path(server.keys).write_text("".join(f"{text}\n" for text in texts))
    found = [each for each in validation_server.authorized(server) if each.kind != "server-permissions"]
    return [(each.kind, each.severity, each.evidence) for each in found]


def test_lines_of_authorized_keys_are_compared_with_what_is_declared(server):
    wanted = validation_server.authorized_line("/opt/borg", server.path("r1"), server.declared[0])
    assert lines(server, wanted, "# a note") == []
    assert lines(server) == [("authorized-key-missing", "critical", "")]
    quota = wanted.replace("5G", "9G")
    assert lines(server, quota) == [("authorized-key-differs", "warning", "quota 9G, declared 5G")]
    ((kind, severity, said),) = lines(server, wanted.replace(" --append-only", ""))
    assert (kind, severity) == ("authorized-key-differs", "critical")
    assert "not append-only" in said
    ((_, severity, said),) = lines(server, wanted.replace(KEY, OTHER))
    assert (severity, said) == ("critical", "another key than the host's")
    assert lines(server, wanted, wanted.replace(KEY, OTHER))[0][0] == "authorized-key-second"
    ((_, severity, said),) = lines(server, f"{KEY} saveos:r1")
    assert (severity, said.split(";")[0]) == ("critical", "no forced command")
    foreign = lines(server, wanted, f"{OTHER} admin@laptop", f'command="true" {OTHER} cron@x')
    assert [(kind, severity) for kind, severity, _ in foreign] == [
        ("authorized-key-foreign", "critical"),
        ("authorized-key-foreign", "warning"),
    ]
    gone = wanted.replace("saveos:r1", "saveos:old").replace(KEY, OTHER)
    assert [kind for kind, *_ in lines(server, wanted, gone)] == ["authorized-key-unknown"]
    server.complete = False
    assert lines(server, wanted, gone) == []


def test_a_key_is_mended_and_other_lines_stay(server, tmp_path, monkeypatch):
    monkeypatch.setattr(validation_core.os, "fchown", lambda *_: None)
    wanted = validation_server.authorized_line("/opt/borg", server.path("r1"), server.declared[0])
    Path(server.keys).write_text(f"# mine\n{wanted.replace(' --append-only', '')}\n{OTHER} cron@x\n")
    found = list(validation_server.authorized(server))
    mender = validation_core.Mender(check_mode=False, backups=str(tmp_path / "kept"))
    validation_core.mend(found, ["authorized-key-differs"], mender)
    assert Path(server.keys).read_text() == f"# mine\n{wanted}\n{OTHER} cron@x\n"
    assert len(list((tmp_path / "kept").glob("*/*authorized_keys"))) == 1


def test_quotas_are_watched(server):
    store = Path(server.path("r1"))
    store.mkdir(parents=True)
    (store / "data").write_bytes(b"x" * 1900)
    server.declared[0]["quota"] = "2K"
    assert ids(validation_server.quotas(server)) == ["quota-near"]
    server.declared[0]["quota"] = "9000P"
    assert ids(validation_server.quotas(server)) == ["quota-overcommitted"]
    assert [validation_server.bytes_of(each) for each in ("", "10", "1.5K", "5G", "x")] == [
        0,
        10,
        1500,
        5 * 10**9,
        0,
    ]


# ---- YAML and compose


def plain(value: Any) -> Any:
    """Return a YAML value with text only and blanks folded, to compare readers."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return "" if value is None or value in ("null", "~") else " ".join(str(value).split())


def test_the_plain_reader_agrees_with_pyyaml_on_this_project():
    """Playbooks, roles and inventories are YAML that people wrote."""
    read = 0
    for folder in ("playbooks", "roles", "inventory", "molecule"):
        for file in sorted((ROOT / folder).rglob("*.y*ml")):
            text = file.read_text()
            try:
                ours = plain_yaml.load(text)
            except plain_yaml.Unsupported:
                continue
            theirs = next(iter(yaml.load_all(text, Loader=yaml.BaseLoader)))
            assert plain(ours) == plain(theirs), file
            read += 1
    assert read > 25


@pytest.mark.parametrize(
    "text",
    [
        "a: [1, 2",
        "a:\n\tb: 1",
        "a: 1\n  b: 2",
        "a: 'open",
        "a: 1\na: 2",
        "- a\nb: 1",
        "a: b: c",
        "a: {b: 1,, c}",
        "just text\nb: 1",
        "a: ]",
    ],
)
def test_broken_yaml_is_said_with_its_line(text):
    with pytest.raises((plain_yaml.YamlError, plain_yaml.Unsupported)) as told:
        plain_yaml.load(text)
    assert told.type is plain_yaml.Unsupported or "line " in str(told.value)


GOOD = """\
services:
  web:
    image: nginx:1
    ports: ["8080:80"]
    environment: [A=1, "DB_PASSWORD=${DB_PASSWORD}"]
    depends_on: {database: {condition: service_started}}
  database:
    image: postgres
    volumes: [data:/data]
volumes: {data: }
"""


def judge(tmp_path, text, env="DB_PASSWORD=uncommon-word\n"):
    """Return the ids found in a compose file with an environment file beside it."""
    (tmp_path / "compose.yml").write_text(text)
    (tmp_path / ".env").write_text(env)
    (tmp_path / ".env").chmod(0o600)
    return sorted(set(ids(validation_compose.below([str(tmp_path)]))))


@pytest.mark.parametrize("reader", ["plain", "yaml"])
def test_compose_files(tmp_path, monkeypatch, reader):
    monkeypatch.setattr(validation_compose, "yaml", yaml if reader == "yaml" else None)
    assert judge(tmp_path, GOOD) == []
    assert judge(tmp_path, GOOD, "") == ["compose-variable-missing"]
    assert judge(tmp_path, GOOD.replace("${DB_PASSWORD}", "${DB_PASSWORD:-changeme}")) == [
        "compose-password-default"
    ]
    assert judge(tmp_path, GOOD.replace("${DB_PASSWORD}", "$$ecret")) == []
    assert judge(tmp_path, GOOD.replace("database: {", "other: {")) == ["compose-invalid"]
    assert judge(tmp_path, GOOD.replace("data:/data", "dta:/data")) == ["compose-invalid"]
    assert judge(tmp_path, GOOD.replace("volumes: {data", "volums: {data")) == ["compose-invalid"]
    assert judge(tmp_path, GOOD.replace("image: postgres", "imag: postgres")) == ["compose-invalid"]
    assert judge(tmp_path, GOOD.replace("volumes: [data", "volumes: [./gone:/x, data")) == [
        "compose-file-missing"
    ]
    assert judge(tmp_path, GOOD.replace("image: postgres", "image: [postgres")) == ["compose-invalid"]
    assert judge(tmp_path, "services: &x {}\n") in (["compose-invalid"], [])
    assert judge(tmp_path, "[]") == ["compose-invalid"]
    conflict = GOOD.replace("image: postgres", 'image: postgres\n    ports: ["8080:80"]')
    assert judge(tmp_path, conflict) == ["compose-port-conflict"]
    assert judge(tmp_path, GOOD, "DB_PASSWORD=admin\nDB_PASSWORD=x\n-bad\n") == [
        "compose-password-default",
        "env-duplicate",
        "env-invalid",
    ]


def test_no_value_of_a_file_is_told(tmp_path):
    (tmp_path / "compose.yml").write_text(GOOD.replace("DB_PASSWORD=${DB_PASSWORD}", "DB_PASSWORD=changeme"))
    (tmp_path / ".env").write_text("DB_PASSWORD=CANARY-1\nCANARY-2 no assignment\nDB_PASSWORD=CANARY-3\n")
    found = list(validation_compose.below([str(tmp_path)]))
    told = json.dumps(validation_core.result(found, None, {}))
    assert "CANARY" not in told
    assert "changeme" not in told
    assert {"compose-password-default", "env-invalid", "env-duplicate", "env-permissions"} == set(ids(found))


def test_links_and_other_places_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "compose.yml").write_text("broken: [")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "compose.yml").symlink_to(outside / "compose.yml")
    (inside / "below").symlink_to(outside)
    (inside / ".env.example").write_text("DB_PASSWORD=changeme\n")
    assert ids(validation_compose.below([str(inside)])) == []
    assert ids(validation_compose.below(["/", "/proc", "/no/such"])) == ["compose-root"] * 3
    assert ids(validation_compose.below(["/var/www-none"])) == ["compose-root"]


def test_files_that_the_guard_took_over_are_not_foreign(tmp_path, monkeypatch):
    """After a guard's run segments are root's and read-only; a file of root's that is not so is a fault."""
    for name, mode in (("1", 0o440), ("2", 0o600)):
        (tmp_path / name).write_bytes(b"x")
        (tmp_path / name).chmod(mode)
    real = os.lstat

    def of_root(path):
        found = real(path)
        return SimpleNamespace(st_uid=0, st_mode=found.st_mode)

    monkeypatch.setattr(os, "lstat", of_root)
    assert validation_server.foreign(str(tmp_path), 1000) == str(tmp_path / "2")
    (tmp_path / "2").unlink()
    assert validation_server.foreign(str(tmp_path), 1000) == ""
