"""Pure parts of the modules and action plugins, and what they do to files."""

import base64
import json
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.saveos.fleet.plugins.action import install as install_action
from ansible_collections.saveos.fleet.plugins.action import preflight as preflight_action
from ansible_collections.saveos.fleet.plugins.module_utils import borg, converge
from ansible_collections.saveos.fleet.plugins.modules import (
    agent_configure,
    install,
    server_repositories,
    server_storage,
)

CONFIG = """\
# Made by SaveOS
source_directories:
- /etc
repositories:
- path: ssh://a
  label: x
encryption_passphrase: '{credential file /etc/saveos/repositories/r1/passphrase}'
commands:
- before: action
  run:
  - mysql -pcanary

  - more canary
postgresql_databases:
- password: canary
keep_daily: 7
"""


def key(number):
    blob = b"\x00\x00\x00\x0bssh-ed25519" + b"\x00\x00\x00\x20" + bytes([number]) * 32
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


class Failed(Exception):
    pass


class FakeModule(SimpleNamespace):
    def fail_json(self, **result):
        raise Failed(result["msg"])

    def exit_json(self, **result):
        self.result = result


def host(check_mode=False):
    return converge.Converge(FakeModule(check_mode=check_mode, _diff=True))


def owner():
    return os.getuid(), os.getgid()


def test_a_diff_shows_the_policy_and_hides_what_may_be_secret():
    shown = agent_configure.showable(CONFIG)
    assert "canary" not in shown
    assert "commands: (hidden)\npostgresql_databases: (hidden)\nkeep_daily: 7\n" in shown
    assert "- /etc\n" in shown
    assert "{credential file" in shown


def test_a_passphrase_written_out_is_hidden():
    assert agent_configure.showable("encryption_passphrase: canary\n") == "encryption_passphrase: (hidden)\n"
    assert "canary" not in agent_configure.showable("keepsake: canary\n")


def test_borgmatics_complaint_names_options_and_no_values():
    output = """summary:
At the top level: Additional properties are not allowed ('surprise' was unexpected)
At 'keep_daily': 'canary' is not of type 'integer'
At 'postgresql_databases[0].password': 'canary: 1' is not of type 'object'
At 'compression': canary
Need some help?"""
    assert agent_configure.complaint(output) == (
        "the top level Additional properties are not allowed ('surprise' was unexpected); "
        "'keep_daily' is not of type 'integer'; "
        "'postgresql_databases[0].password' is not of type 'object'; 'compression' is not valid"
    )
    assert "no reason" in agent_configure.complaint("canary")


def server(address="10.0.0.9", port=22, keys=()):
    return {"kind": "ssh", "address": address, "port": port, "host_keys": list(keys)}


def test_host_keys_are_pinned_from_this_run_else_kept():
    assert agent_configure.pinned("", [server(keys=[key(1) + " comment"])]) == f"10.0.0.9 {key(1)}\n"
    assert agent_configure.pinned(f"10.0.0.9 {key(1)}\n", [server()]) == f"10.0.0.9 {key(1)}\n"
    assert agent_configure.pinned(f"10.0.0.9 {key(1)}\n", [server(keys=[key(2)])]) == f"10.0.0.9 {key(2)}\n"
    assert agent_configure.pinned("", [server(port=2222, keys=[key(1)])]) == f"[10.0.0.9]:2222 {key(1)}\n"
    assert agent_configure.pinned("", [{"kind": "local"}]) == ""


def test_an_unknown_server_is_never_trusted_at_first_sight():
    with pytest.raises(ValueError, match=r"10\.0\.0\.9 is not known: run playbooks/site\.yml"):
        agent_configure.pinned(f"10.0.0.8 {key(1)}\n", [server()])


@pytest.mark.parametrize(
    ("stderr", "code", "words"),
    [
        (
            {"levelname": "ERROR", "msgid": "PassphraseWrong", "message": "no"},
            "PassphraseWrong",
            "passphrase on this host",
        ),
        (
            {"levelname": "ERROR", "msgid": "Repository.DoesNotExist"},
            "Repository.DoesNotExist",
            "no repository at ssh://x",
        ),
        ("Host key verification failed.", "", "another SSH host key"),
        ("ssh: connect to host x port 22: Connection refused", "", "nothing listens for SSH"),
        (
            {"levelname": "ERROR", "msgid": "Unheard", "message": "strange"},
            "Unheard",
            "borg says about ssh://x: strange",
        ),
        ("", "", "nothing"),
    ],
)
def test_borgs_errors_become_sentences(stderr, code, words):
    text = stderr if isinstance(stderr, str) else json.dumps(stderr)
    found, sentence = borg.explain(text, "ssh://x", "/etc/saveos/repositories/r1")
    assert found == code
    assert words in sentence


def test_debian_12s_borg_is_refused_with_reason_and_fallbacks():
    sentence = install.refusal("borg", install.version_of("1.2.4-1"), "this distribution's")
    assert "1.2.4 is too old, 1.4.0 is needed" in sentence
    assert "CVE-2023-36811" in sentence
    assert "`bundle`" in sentence
    assert "`path`" in sentence


@pytest.mark.parametrize(
    ("tool", "text"), [("borg", "borg 1.4.5"), ("borg", "1.4.0-5"), ("borgmatic", "2.1.10")]
)
def test_new_enough_versions_are_taken(tool, text):
    assert install.refusal(tool, install.version_of(text), "your") == ""


def test_a_program_that_tells_no_version_is_refused():
    assert "too old" in install.refusal("borg", install.version_of("segfault"), "your")


@pytest.mark.parametrize(
    ("version", "older"), [("2.31", True), ("2.36", False), ("2.41", False), ("3.0", False)]
)
def test_glibc_is_compared_by_number(version, older):
    assert install_action.is_older(version, "2.36") is older


def test_a_host_with_an_old_glibc_is_refused_with_fallbacks(tmp_path):
    bundle = tmp_path / "saveos-bundle-x86_64.tar.gz"
    bundle.write_bytes(b"")
    (tmp_path / "saveos-bundle-x86_64.json").write_text(json.dumps({"arch": "x86_64", "glibc": "2.36"}))
    old = {"arch": "x86_64", "glibc": "2.31", "os": "Debian 11"}
    with pytest.raises(Exception, match=r"needs glibc 2\.36 and Debian 11 has 2\.31: .*`package`.*`path`"):
        install_action.read_label(bundle, old)
    assert install_action.read_label(bundle, {**old, "glibc": "2.41"})["glibc"] == "2.36"
    with pytest.raises(Exception, match="is for x86_64 and this host is aarch64"):
        install_action.read_label(bundle, {**old, "arch": "aarch64"})


def test_a_bundle_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Exception, match=r"nowhere\.tar\.gz does not exist: build it with scripts/bundle\.py"):
        install_action.find_bundle(str(tmp_path / "nowhere.tar.gz"), "x86_64", None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("/bin/sh: 1: sudo: not found", "sudo is not installed there"),
        ("Missing sudo password", "asks for a password"),
        ("plain is not in the sudoers file: sudo", "add a sudoers rule"),
        ("something else", ""),
    ],
)
def test_become_that_fails_is_explained(text, words):
    sentence = preflight_action.become_sentence(text)
    assert words in sentence
    assert bool(sentence) == bool(words)


def test_a_changed_host_key_is_explained():
    assert "ssh-keygen -R" in preflight_action.connection_sentence("Host key verification failed.")
    assert "see that it is up" in preflight_action.connection_sentence("No route to host")
    assert preflight_action.connection_sentence("something else") == ""


def test_files_are_made_once_with_mode_and_diff(tmp_path):
    path = str(tmp_path / "a")
    first = host()
    first.file(path, "new\n", 0o600, *owner())
    first.exit()
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert first.module.result["changed"]
    assert first.module.result["diff"][0]["after"] == "new\n"
    again = host()
    again.file(path, "new\n", 0o600, *owner())
    assert not again.changed


def test_a_mode_that_drifted_is_put_right(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    path.chmod(0o644)
    run = host()
    run.file(str(path), "x", 0o600, *owner())
    assert run.changed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_check_mode_writes_nothing(tmp_path):
    run = host(check_mode=True)
    run.directory(str(tmp_path / "d"), 0o700, *owner())
    run.file(str(tmp_path / "d" / "f"), "x", 0o600, *owner())
    run.link(str(tmp_path / "l"), "target")
    run.do("something", "false")
    assert run.changed
    assert list(tmp_path.iterdir()) == []


def test_a_hidden_file_never_shows_in_a_diff(tmp_path):
    path = tmp_path / "secret"
    path.write_text("old canary")
    run = host()
    run.file(str(path), "new canary", 0o600, *owner(), show=False)
    run.exit()
    assert "canary" not in json.dumps(run.module.result)


def test_a_link_replaces_a_file_but_no_directory(tmp_path):
    (tmp_path / "l").write_text("x")
    run = host()
    run.link(str(tmp_path / "l"), "target")
    assert (tmp_path / "l").readlink().name == "target"
    (tmp_path / "d").mkdir()
    with pytest.raises(Failed, match="is in the way"):
        run.link(str(tmp_path / "d"), "target")


def test_a_command_that_fails_ends_with_what_and_why():
    with pytest.raises(Failed, match="start sshd failed: no such service"):
        host().do("start sshd", "sh", "-c", "echo no such service >&2; exit 1")


def account(**fields):
    found = {"pw_name": "saveos-borg", "pw_uid": 999, "pw_dir": "/srv", "pw_shell": server_storage.SHELL}
    return SimpleNamespace(**found | fields)


@pytest.mark.parametrize(
    ("fields", "commands"),
    [
        ({}, []),
        ({"pw_shell": "/bin/sh"}, [("usermod", "--shell", server_storage.SHELL, "saveos-borg")]),
        ({"pw_shell": "/bin/sh", "pw_uid": 1000}, []),  # a person's
        ({"pw_shell": "/bin/bash"}, []),
    ],
)
def test_a_users_shell_is_taken_away_where_we_gave_it(monkeypatch, fields, commands):
    called = []
    there = host()
    monkeypatch.setattr(there, "do", lambda _what, *argv, **_options: called.append(argv))
    monkeypatch.setattr(server_storage.pwd, "getpwnam", lambda _name: account(**fields))
    server_storage.ensure_user(there, "saveos-borg", "/srv")
    assert called == commands


def test_a_host_that_tells_no_key_or_anothers_shuts_out_only_itself():
    def wanted(name, told):
        return {"id": name, "public_key": told, "quota": "1G"}

    text, out = server_repositories.let_in("", [wanted("a", key(1)), wanted("b", key(2))], [], "/borg", "/srv")
    assert out == {} and text.count("\n") == 2
    hosts = [wanted("b", key(1)), wanted("evil", "; rm -rf /"), wanted("a", key(3)), wanted("c", key(1))]
    after, out = server_repositories.let_in(text, hosts, [], "/borg", "/srv")
    assert set(out) == {"evil", "c"}
    assert [(line.split()[-2], line.split()[-1]) for line in after.splitlines()] == [
        (key(3).split()[1], "saveos:a"),
        (key(1).split()[1], "saveos:b"),
    ]
    again, out = server_repositories.let_in(
        after, [wanted("a", key(1)), wanted("d", key(4))], [], "/borg", "/srv"
    )
    assert set(out) == {"a"} and again.startswith(after), "what it had stays"


def test_a_new_user_has_neither_shell_nor_password_and_root_is_refused(monkeypatch):
    def missing(name):
        raise KeyError(name)

    called = []
    there = host(check_mode=True)
    monkeypatch.setattr(there, "do", lambda _what, *argv, **_options: called.append(argv))
    monkeypatch.setattr(server_storage.pwd, "getpwnam", missing)
    assert server_storage.ensure_user(there, "saveos-borg-acme", "/srv/saveos/tenants/acme") is None
    (made,) = called
    assert made[-5:] == ("--shell", server_storage.SHELL, "--password", "*", "saveos-borg-acme")
    assert "--system" in made and "/srv/saveos/tenants/acme" in made
    monkeypatch.setattr(server_storage.pwd, "getpwnam", lambda _name: account(pw_uid=0))
    with pytest.raises(Failed, match="is root"):
        server_storage.ensure_user(there, "root", "/srv")


def test_a_repository_of_another_user_of_the_server_is_found(tmp_path):
    base, tenants = str(tmp_path), tmp_path / "tenants"
    shared, acme = f"{base}/repositories/r1", f"{tenants}/acme/repositories/r1"
    assert server_repositories.elsewhere(base, acme) == ""
    Path(shared).mkdir(parents=True)
    assert server_repositories.elsewhere(base, acme) == shared
    assert server_repositories.elsewhere(base, shared) == ""
    assert server_repositories.elsewhere("", acme) == ""
    Path(shared).rename(f"{base}/r1")
    Path(acme).mkdir(parents=True)
    assert server_repositories.elsewhere(base, shared) == acme
    assert server_repositories.elsewhere(base, f"{tenants}/other/repositories/r1") == acme
    assert server_repositories.elsewhere(base, f"{tenants}/other/repositories/r2") == ""
