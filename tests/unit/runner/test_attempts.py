"""Real plays on local connections: how they end, and that nothing of them stays."""

import errno
import fcntl
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from saveos.runner import attempts
from saveos.runner.directory import private_root, remove, remove_root

from . import plays


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An installation's home."""
    (tmp_path / "home").mkdir()
    yield tmp_path / "home"
    remove_root(tmp_path / "home")


def private(home: Path) -> list[Path]:
    return list(private_root(home).iterdir())


def test_play_reports_events_and_result_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    playbook = plays.play(
        tmp_path / "p.yml",
        "name: say\nansible.builtin.debug: {msg: hello}",
        "name: change\nansible.builtin.command: 'true'",
        "name: break\nansible.builtin.command: 'false'\nignore_errors: true",
    )
    spec = plays.spec(playbook, plays.target("web1"), plays.target("web2"), first_event=41)
    lines, result = plays.finish(attempts.start(spec, home))
    assert result == attempts.Result("exited", 0)
    events = [line for line in lines if "n" in line]
    assert [event["n"] for event in events] == list(range(42, 42 + len(events)))
    assert {"ok", "changed", "ignored", "recap", "play", "task"} <= {event["k"] for event in events}
    assert [event["text"] for event in events if event["k"] == "ok"] == ["hello", "hello"]
    assert events[-1]["stats"]["web2"] == {
        "ok": 3, "changed": 2, "failed": 0, "unreachable": 0, "skipped": 0, "ignored": 1, "rescued": 0,
    }  # fmt: skip
    assert {line["start"] for line in lines if "start" in line} == {"web1", "web2"}
    assert private(home) == []


def test_result_of_a_task_travels(home: Path, tmp_path: Path) -> None:
    playbook = plays.play(
        tmp_path / "p.yml", "ansible.builtin.set_fact: {x: 1}\nregister: out", 'fail: {msg: "no"}'
    )
    lines, result = plays.finish(attempts.start(plays.spec(playbook), home))
    assert result.code == 2
    assert [line["text"] for line in lines if line.get("k") == "failed"] == ["no"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "could not be found"),
        ("- hosts: agents\n  tasks:\n    - nonsense: {", "YAML"),
        ("- hosts: agents\n  tasks:\n    - no_such_module: {}\n", "no_such_module"),
    ],
)
def test_failure_before_any_host_says_why(
    home: Path, tmp_path: Path, content: str | None, expected: str
) -> None:
    playbook = tmp_path / "p.yml"
    if content:
        playbook.write_text(content)
    lines, result = plays.finish(attempts.start(plays.spec(playbook), home))
    assert result.reason == "exited"
    assert result.code
    assert expected in "\n".join(line.get("text", "") for line in lines)


def test_cancel_ends_the_whole_tree(home: Path, tmp_path: Path) -> None:
    token = f"9{time.time_ns() % 10**8}"
    playbook = plays.play(
        tmp_path / "p.yml", f"ansible.builtin.shell: (setsid sleep {token} &) ; sleep {token}"
    )
    attempt = attempts.start(plays.spec(playbook), home)
    plays.eventually(lambda: len(plays.running(f"sleep\0{token}")) == 2)
    started = time.monotonic()
    attempt.cancel()
    _, result = plays.finish(attempt)
    assert result == attempts.Result("canceled", None)
    assert time.monotonic() - started < 30
    assert plays.running(token) == []
    assert private(home) == []


def test_a_supervisor_that_cannot_start_leaves_no_keys_and_no_lock(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    before = len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(attempts.subprocess, "Popen", full)
    with pytest.raises(BlockingIOError):
        attempts.start(plays.spec(plays.play(tmp_path / "p.yml", "ansible.builtin.ping:"), ssh_key="k"), home)
    assert private(home) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_cancel_at_once_is_not_overheard(home: Path, tmp_path: Path) -> None:
    """It stands behind the password in the pipe, before the supervisor has read anything."""
    token = f"9{time.time_ns() % 10**8}"
    playbook = plays.play(tmp_path / "p.yml", f"ansible.builtin.command: sleep {token}")
    attempt = attempts.start(plays.spec(playbook), home)
    attempt.cancel()
    _, result = plays.finish(attempt)
    assert result == attempts.Result("canceled", None)


def test_what_is_said_after_the_end_reaches_no_other_play(home: Path, tmp_path: Path) -> None:
    """Another thread may cancel a play in the moment of its end, whose descriptor is then somebody else's."""
    attempt = attempts.start(plays.spec(plays.play(tmp_path / "p.yml", "ansible.builtin.debug:")), home)
    assert attempt.wait(60)
    number = attempt._line
    attempt.finish()
    ends = os.pipe()
    reading = fcntl.fcntl(ends[0], fcntl.F_DUPFD, number + 100)
    os.dup2(ends[1], number)
    attempt.cancel()
    os.set_blocking(reading, False)
    with pytest.raises(BlockingIOError):
        os.read(reading, 1)
    for each in {*ends, reading, number}:
        os.close(each)


@pytest.mark.parametrize(("changes", "reason"), [({"timeout": 2}, "timeout"), ({"lease": 2}, "worker-lost")])
def test_timeout_and_silence_end_the_play(
    home: Path, tmp_path: Path, changes: dict[str, float], reason: str
) -> None:
    token = f"9{time.time_ns() % 10**8}"
    playbook = plays.play(tmp_path / "p.yml", f"ansible.builtin.command: sleep {token}")
    _, result = plays.finish(attempts.start(plays.spec(playbook, **changes), home))
    assert result.reason == reason
    assert plays.running(token) == []


def test_what_outlives_a_normal_end_is_ended(home: Path, tmp_path: Path) -> None:
    token = f"9{time.time_ns() % 10**8}"
    playbook = plays.play(tmp_path / "p.yml", f"ansible.builtin.shell: setsid sleep {token} >/dev/null 2>&1 &")
    _, result = plays.finish(attempts.start(plays.spec(playbook), home))
    assert result == attempts.Result("exited", 0)
    assert plays.running(token) == []


def test_killed_supervisor_leaves_no_process(home: Path, tmp_path: Path) -> None:
    token = f"9{time.time_ns() % 10**8}"
    playbook = plays.play(
        tmp_path / "p.yml", f"ansible.builtin.shell: (setsid sleep {token} &) ; sleep {token}"
    )
    attempt = attempts.start(plays.spec(playbook), home)
    plays.eventually(lambda: len(plays.running(f"sleep\0{token}")) == 2)
    os.kill(attempt._process.pid, signal.SIGKILL)
    _, result = plays.finish(attempt)
    assert result == attempts.Result("killed", None)
    assert plays.running(token) == []
    assert private(home) == []


def test_orphan_is_found_and_ended(home: Path, tmp_path: Path) -> None:
    """Worker and supervisor are killed: the next worker finds the private directory with a free lock."""
    token = f"9{time.time_ns() % 10**8}"
    playbook = plays.play(tmp_path / "p.yml", f"ansible.builtin.command: sleep {token}")
    spec = plays.spec(playbook)
    attempt = attempts.start(spec, home)
    plays.eventually(lambda: plays.running(f"sleep\0{token}"))
    assert list(attempts.orphans(home)) == []
    os.kill(attempt._process.pid, signal.SIGKILL)
    attempt._process.wait()
    plays.eventually(lambda: list(attempts.orphans(home)) == [spec.name])
    attempts.end_orphan(home, spec.name)
    assert plays.running(token) == []
    assert private(home) == []
    attempt.finish()


def test_looking_for_orphans_bears_plays_that_end_meanwhile(home: Path) -> None:
    """One that has just ended is none: its mark is also that of the attempt's next play."""
    root = private_root(home)
    names = [f"{uuid.uuid4().hex}.1.main" for _ in range(3)]
    for name in sorted(names):
        (root / name).mkdir(mode=0o700)
        (root / name / "lock").touch()
    found = attempts.orphans(home)
    first = next(found)
    for path in private(home):
        if path.name != first:
            remove(path)
    assert list(found) == []


def test_play_that_is_being_started_is_no_orphan(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is held from the moment in which it can be seen."""
    seen: list[str] = []
    lock = fcntl.flock

    def look_before(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_EX:
            seen.extend(attempts.orphans(home))
        lock(descriptor, how)

    monkeypatch.setattr(attempts.fcntl, "flock", look_before)
    playbook = plays.play(tmp_path / "p.yml", "ansible.builtin.debug: {msg: hello}")
    _, result = plays.finish(attempts.start(plays.spec(playbook), home))
    assert (seen, result.reason) == ([], "exited")


CANARY = "c4n4ry-9f1b"
LOOK = """
import pathlib, sys
canary = pathlib.Path(sys.argv[1]).read_bytes()
places = [p for root in sys.argv[2:] for p in pathlib.Path(root).rglob("*") if p.is_file()]
places += [p for name in ("environ", "cmdline") for p in pathlib.Path("/proc").glob(f"[0-9]*/{name}")]
for place in places:
    try:
        if canary in place.read_bytes():
            print(place)
    except OSError:
        pass
"""


def test_secrets_reach_the_play_and_nothing_else(home: Path, tmp_path: Path) -> None:
    """The play sees the secret; its files, its spool, its processes' environments and lines do not."""
    seen, script = tmp_path / "seen", tmp_path / "look.py"
    (tmp_path / "canary").write_text(CANARY)
    script.write_text(LOOK)
    look = f"/usr/bin/python3 {script} {tmp_path}/canary {private_root(home)} {home}"
    hook = "'{{ agent_hooks.before[0] }}'"
    playbook = plays.play(
        tmp_path / "p.yml",
        f"name: use\nansible.builtin.copy: {{content: {hook}, dest: {seen}}}\nno_log: true",
        f"name: look\nansible.builtin.command: {look}\nregister: out",
        "name: show\nansible.builtin.debug: {msg: 'found {{ out.stdout_lines }}'}",
        f"name: end\nansible.builtin.command:\n  argv: [/bin/false, {hook}]\nno_log: true",
    )
    target = plays.target("web1", secrets={"agent_hooks": {"before": [CANARY], "after": []}})
    lines, result = plays.finish(attempts.start(plays.spec(playbook, target, verbosity=3), home))
    assert result == attempts.Result("exited", 2)
    assert seen.read_text() == CANARY
    assert [line["text"] for line in lines if line.get("task") == "show" and line["k"] == "ok"] == ["found []"]
    left = [path for path in home.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert left == []


def test_templates_in_any_field_stay_text(home: Path, tmp_path: Path) -> None:
    """Every string of the inventory carries a template that would make a file; none is evaluated."""
    count = iter(range(1000))

    def canary() -> str:
        return "{{ lookup('pipe', 'touch " + str(tmp_path) + f"/evaluated-{next(count)}') }}}}"

    variables = {
        "agent_sources": [canary()],
        "agent_retention": {canary(): canary()},
        "maintenance_destination": canary(),
        "agent_borgmatic_overrides": {"a": [{"b": canary()}]},
    }
    playbook = plays.play(
        tmp_path / "p.yml",
        "ansible.builtin.debug:\n  msg: '{{ [agent_sources, agent_retention, maintenance_destination, "
        "agent_borgmatic_overrides, agent_hooks, hostvars[inventory_hostname] | string] }}'",
        "ansible.builtin.command:\n  argv: [echo, '{{ agent_sources[0] }}', '{{ agent_hooks.before[0] }}']",
        "name: '{{ maintenance_destination }}'\nansible.builtin.debug: {msg: x}",
    )
    good = plays.target("web1", variables=variables, secrets={"agent_hooks": {"before": [canary()]}})
    lines, result = plays.finish(attempts.start(plays.spec(playbook, good), home))
    assert result.code == 0, lines
    for field in ("address", "user", "connection"):
        changes = {"connection": "ssh", "port": 1, "host_keys": (canary(),), field: canary()}
        plays.finish(attempts.start(plays.spec(playbook, plays.target("web1", **changes)), home))
    assert list(tmp_path.glob("evaluated-*")) == []
    for name in (canary(), "web[1:3]", "-oProxyCommand=x", "a b", ""):
        with pytest.raises(ValueError, match="no name"):
            attempts.start(plays.spec(playbook, plays.target(name)), home)
    assert list(tmp_path.glob("evaluated-*")) == []


def test_ssh_arguments_cannot_be_smuggled(home: Path, tmp_path: Path) -> None:
    """An unknown host key is refused; a ProxyCommand in the address is never run."""
    playbook = plays.play(tmp_path / "p.yml", "ansible.builtin.command: 'true'")
    for address in ("-oProxyCommand=touch " + str(tmp_path / "smuggled"), "127.0.0.1"):
        target = plays.target("web1", connection="ssh", port=1, address=address)
        lines, result = plays.finish(attempts.start(plays.spec(playbook, target), home))
        assert result.code == 4
        assert "unreachable" in plays.kinds(lines)
    assert not (tmp_path / "smuggled").exists()


def test_spool_waits_for_a_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    spool = attempts.Spool(path)
    assert spool.read() == []
    path.write_text('{"n":1}\n{"n":2')
    assert spool.read() == [{"n": 1}]
    with path.open("a") as file:
        file.write('2}\n{broken\n{"n":3}\n')
    assert spool.read() == [{"n": 22}, {"n": 3}]


def test_end_marked_touches_no_other_attempt() -> None:
    mark = f"{uuid.uuid4()}:1"
    assert attempts.end_marked(mark) == 0


def test_end_marked_finds_what_overwrote_its_environment() -> None:
    job = uuid.uuid4()
    title = f"ssh: /dev/shm/saveos-0123/{job.hex}.1.main/cp/42 [mux]"
    shared = subprocess.Popen([title, "60"], executable="/bin/sleep", env={})
    assert attempts.end_marked(f"{job}:2") == 0
    assert attempts.end_marked(f"{job}:1") == 1
    assert shared.wait(60) == -signal.SIGKILL
