"""Rotation of passphrase, SSH key and token, killed at every step: what is stored always opens.

Each single step with a quick stand-in of borg, the steps that matter with the real one;
tests/lab/test_rotation.py does it on hosts.
"""

import base64
import dataclasses
import hashlib
import json
import os
import shlex
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from .conftest import PASSPHRASE, REPOSITORY

# As borg: one passphrase opens the repository, and it can be changed to BORG_NEW_PASSPHRASE.
STAND_IN = r"""#!/bin/sh
given=$(sh -c "$BORG_PASSCOMMAND")
for at; do :; done
wrong='{"levelname": "ERROR", "msgid": "PassphraseWrong"}'
case "$*" in
*"key export"*) echo "BORG_KEY of $(cksum <"$at/opens-with")" ; exit ;;
esac
[ "$given" = "$(cat "$at/opens-with")" ] || { echo "$wrong" >&2; exit 52; }
case "$*" in
*change-passphrase*) printf %s "$BORG_NEW_PASSPHRASE" >"$at/new" && mv "$at/new" "$at/opens-with" ;;
esac
"""
RECOVERY = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="


class Book:
    """A controller: keeps escrow and knows tokens. `broken` makes it answer 503."""

    def __init__(self):
        self.escrows, self.tokens, self.broken = [], set(), False
        book = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = book.take(self.path, self.headers["Authorization"], body)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path, authorization, body):
        """Answer as the controller does."""
        digest = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).hexdigest()
        if self.broken:
            return 503, {"detail": "no"}
        if digest not in self.tokens:
            return 401, {"detail": "unknown"}
        if path.endswith("/agents/token"):
            self.tokens = {digest, body["token_sha256"]}
            return 200, {}
        self.escrows.append(body)
        sealed = base64.b64decode(body["sealed"])
        return 200, {"digest": hashlib.sha256(sealed).hexdigest()}


@pytest.fixture
def rotating(backed, agent, tmp_path):
    """A host with a repository, an escrow that a stand-in of saveos-seal makes, and a controller."""
    book = Book()
    book.tokens = {hashlib.sha256((backed.etc / "token").read_text().strip().encode()).hexdigest()}
    told = json.loads((backed.etc / "agent.json").read_text())
    told["controller"]["url"] = book.url
    (backed.etc / "agent.json").write_text(json.dumps(told))
    seal = tmp_path / "seal"
    seal.write_text("#!/bin/sh\nbase64 -w0\n")
    seal.chmod(0o755)
    home = backed.etc / "repositories" / REPOSITORY
    yield SimpleNamespace(
        backed=backed,
        book=book,
        seal=str(seal),
        home=home,
        settings=agent.load_settings(backed.etc),
        quick=None,
    )
    book.server.shutdown()


@pytest.fixture
def quick(rotating):
    """The same host, with the stand-in of borg."""
    repository = rotating.backed.base / "quick"
    repository.mkdir()
    (repository / "opens-with").write_text(PASSPHRASE)
    program = rotating.backed.base / "borg"
    program.write_text(STAND_IN)
    program.chmod(0o755)
    stores = (dataclasses.replace(rotating.settings.repositories[0], url=str(repository)),)
    rotating.settings = dataclasses.replace(rotating.settings, borg=str(program), repositories=stores)
    rotating.quick = repository
    return rotating


def rotation(agent, rotating):
    """A rotation of the host's one repository."""
    return agent.PassphraseRotation(rotating.settings, rotating.settings.repositories[0])


def opens(rotating, passphrase):
    """Whether the repository opens with this passphrase, asked without our code."""
    if rotating.quick:
        return (rotating.quick / "opens-with").read_text() == passphrase
    base = {"BORG_PASSPHRASE": passphrase, "BORG_BASE_DIR": str(rotating.backed.base / "asked")}
    argv = [rotating.settings.borg, "list", rotating.settings.repositories[0].url]
    done = subprocess.run(argv, env={**os.environ, **base}, capture_output=True, check=False)
    return done.returncode == 0


def kept(rotating):
    """Every passphrase that is on the host or in an escrow."""
    files = [rotating.home / name for name in ("passphrase", "passphrase.next", "passphrase.old")]
    found = {path.read_text().strip() for path in files if path.exists()}
    for each in rotating.book.escrows:
        found.add(json.loads(base64.b64decode(each["sealed"]))["passphrase"])
    return found - {""}


def killed_at(point, work):
    """Do the work in a process that dies by SIGKILL before its `point`-th durable step; whether it did."""
    child = os.fork()
    if child == 0:
        steps = [0]

        def counting(function):
            def counted(*words, **named):
                steps[0] += 1
                if steps[0] == point:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*words, **named)

            return counted

        for module, name in ((os, "replace"), (os, "link"), (os, "unlink"), (subprocess, "run")):
            setattr(module, name, counting(getattr(module, name)))
        try:
            work()
        except BaseException:  # noqa: BLE001 - this process ends here
            os._exit(3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_passphrase_is_rotated_and_the_old_one_opens_nothing(agent, rotating):
    before = (rotating.home / "passphrase").read_text()
    code, said = rotating.backed.run(
        "rotate", "passphrase", f"--recovery-key={RECOVERY}", f"--seal={rotating.seal}"
    )
    after = (rotating.home / "passphrase").read_text()
    assert code == 0 and said["rotated"] == [REPOSITORY], said
    assert after != before and opens(rotating, after.strip()) and not opens(rotating, PASSPHRASE)
    assert sorted(path.name for path in rotating.home.iterdir()) == [
        "initialised",
        "key-export",
        "passphrase",
        "sealed",
    ]
    assert {path.stat().st_mode & 0o777 for path in rotating.home.iterdir()} == {0o600}
    assert kept(rotating) == {after.strip()}
    assert after.strip() not in json.dumps(said)
    assert rotating.backed.run("backup", "--wait")[1]["state"] in ("succeeded", "warning")


def killed_and_finished(agent, rotating, point):
    """Kill a rotation at a point: what is kept opens; the next one finishes. The rotation's exit code."""
    work = rotation(agent, rotating)
    code = killed_at(point, lambda: work.begin(RECOVERY, rotating.seal))
    assert code in (0, -signal.SIGKILL), (point, code)
    assert any(opens(rotating, each) for each in kept(rotating)), point
    rotation(agent, rotating).settle()
    stored = (rotating.home / "passphrase").read_text().strip()
    assert opens(rotating, stored), point
    assert not rotation(agent, rotating).is_open(), point
    if rotating.book.escrows:
        newest = json.loads(base64.b64decode(rotating.book.escrows[-1]["sealed"]))
        assert newest["passphrase"] == stored, point
    return code


def test_killed_at_each_step_it_always_opens_and_is_finished_later(agent, quick):
    point = 1
    while killed_and_finished(agent, quick, point):
        point += 1
    assert point > 15


@pytest.mark.parametrize("point", [5, 6, 10, 13])
def test_killed_around_the_change_the_real_repository_opens(agent, rotating, point):
    """Before the change, after it, before the new file is in force, before the new escrow."""
    assert killed_and_finished(agent, rotating, point) == -signal.SIGKILL


def test_settling_itself_may_be_killed(agent, quick):
    """Killed in the middle, and then again at each step of what finishes it."""
    point = 0
    while True:
        point += 1
        first = rotation(agent, quick)
        assert killed_at(6, lambda first=first: first.begin(RECOVERY, quick.seal)) == -signal.SIGKILL
        second = rotation(agent, quick)
        code = killed_at(point, second.settle)
        assert any(opens(quick, each) for each in kept(quick)), point
        rotation(agent, quick).settle()
        assert opens(quick, (quick.home / "passphrase").read_text().strip())
        if code == 0:
            break
    assert point > 3


def test_without_the_controllers_word_both_passphrases_stay(agent, quick):
    """The escrow is not acknowledged: the old file stays until a later try is."""
    quick.book.broken = True
    with pytest.raises(agent.AgentError, match="did not take the sealed passphrase"):
        rotation(agent, quick).begin(RECOVERY, quick.seal)
    assert (quick.home / "passphrase.old").read_text().strip() == PASSPHRASE
    assert opens(quick, (quick.home / "passphrase").read_text().strip())
    quick.book.broken = False
    assert agent.settle_rotations(quick.settings) == []
    assert not (quick.home / "passphrase.old").exists() and len(quick.book.escrows) == 1


def test_a_second_rotation_begins_only_with_an_escrow_that_the_controller_takes(agent, quick):
    rotation(agent, quick).begin(RECOVERY, quick.seal)
    before = (quick.home / "passphrase").read_text()
    quick.book.broken = True
    with pytest.raises(agent.AgentError):
        rotation(agent, quick).begin(RECOVERY, quick.seal)
    assert (quick.home / "passphrase").read_text() == before
    assert not rotation(agent, quick).is_open()


def test_a_repository_that_cannot_be_asked_changes_nothing(agent, rotating):
    """An unreachable repository: a clear sentence, nothing begun."""
    away = rotating.backed.base / "away"
    (rotating.backed.base / "repository").rename(away)
    with pytest.raises(agent.AgentError, match="cannot be asked"):
        rotation(agent, rotating).begin(RECOVERY, rotating.seal)
    assert not rotation(agent, rotating).is_open()
    away.rename(rotating.backed.base / "repository")


def test_passphrases_are_on_no_command_line(agent, quick, monkeypatch):
    """What borg and the sealing tool are called with holds neither the old nor the new one."""
    seen, real = [], subprocess.run

    def watched(argv, **named):
        seen.append(shlex.join(argv))
        return real(argv, **named)

    monkeypatch.setattr(subprocess, "run", watched)
    rotation(agent, quick).begin(RECOVERY, quick.seal)
    new = (quick.home / "passphrase").read_text().strip()
    assert len(seen) >= 5
    assert not any(PASSPHRASE in words or new in words for words in seen)


def test_a_token_killed_at_each_step_is_always_known(agent, rotating):
    """After each kill the token in force is one that the controller knows, and a heartbeat finishes."""
    point = 0
    while True:
        point += 1
        code = killed_at(point, agent.TokenRotation(rotating.settings).begin)
        stored = (rotating.backed.etc / "token").read_text().strip()
        assert hashlib.sha256(stored.encode()).hexdigest() in rotating.book.tokens, point
        agent.TokenRotation(rotating.settings).settle()
        stored = (rotating.backed.etc / "token").read_text().strip()
        assert rotating.book.tokens == {hashlib.sha256(stored.encode()).hexdigest()}, point
        if code == 0:
            break
    assert point > 4


def test_ages_are_told_and_no_values(agent, rotating):
    told = rotating.backed.run("rotate", "list")[1]
    kinds = {each["kind"]: each for each in told["secrets"]}
    assert set(kinds) == {"passphrase", "escrow", "ssh-key", "agent-token"}
    assert kinds["passphrase"]["made_at"] and kinds["escrow"]["made_at"] is None
    assert PASSPHRASE not in json.dumps(told)


def test_a_key_is_offered_once_and_stays_until_it_is_proven(agent, rotating):
    """Interrupted between offer and proof, the same new key is offered again."""
    ssh = rotating.backed.etc / "ssh"
    ssh.mkdir()
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "id_ed25519")]
    subprocess.run(argv, check=True)
    key = agent.KeyRotation(rotating.settings)
    first, again = key.offer(), key.offer()
    assert first == again and first["public_key"] != first["next_public_key"]
    proven = key.prove()
    assert proven["public_key"] == first["next_public_key"]
    assert (ssh / "id_ed25519.pub").read_text().split()[1] == first["next_public_key"].split()[1]
    assert key.former.exists() and key.drop() == proven and not key.former.exists()
