import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from saveos.cli import keeper, process
from saveos.cli.errors import CommandError
from saveos.cli.installation import Installation


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def start_keeper(home: Path, script: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", keeper.__file__, str(home), sys.executable, "-c", script]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def test_a_used_port_is_a_sentence_with_the_next_one():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            CommandError, match=f"Port {port} on 127.0.0.1 is in use.*SAVEOS_LISTEN=127.0.0.1:{port + 1}"
        ):
            process.refuse_used_port(f"http://127.0.0.1:{port}")
    process.refuse_used_port(f"http://127.0.0.1:{port}")


def test_an_address_of_another_machine_is_a_sentence():
    with pytest.raises(CommandError, match="address of this machine"):
        process.refuse_used_port("http://192.0.2.1:8000")


def test_the_keeper_starts_again_what_was_killed_and_ends_with_it(tmp_path):
    Installation(tmp_path).marker.touch()  # else `saveos up` on this machine takes it for a leftover
    pids = tmp_path / "pids"
    script = f"import os, time; open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(60)"
    keeping = start_keeper(tmp_path, script)
    try:
        wait_for(lambda: pids.exists() and pids.read_text().count("\n") == 1)
        os.kill(int(pids.read_text()), signal.SIGKILL)
        wait_for(lambda: pids.read_text().count("\n") == 2)
        second = int(pids.read_text().split()[1])
        process.end_process(keeping.pid)
        assert keeping.wait(30) == 0
        assert process.start_time(second) is None
    finally:
        keeping.kill()
        keeping.wait()


def test_the_keeper_ends_when_its_home_is_gone(tmp_path):
    keeping = start_keeper(tmp_path / "deleted", "raise SystemExit(7)")
    assert keeping.wait(60) == 7


def test_a_process_that_will_not_end_is_killed():
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    stubborn = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert stubborn.stdout and stubborn.stdout.readline() == b"\n"
    process.end_process(stubborn.pid, seconds=0.2)
    assert stubborn.wait(30) == -signal.SIGKILL


def test_a_pid_that_was_given_to_another_process_is_not_ours(tmp_path):
    here = Installation(tmp_path)
    state = {"pid": os.getpid(), "started": process.start_time(os.getpid()), "fingerprint": "x", "url": "u"}
    here.process.write_text(json.dumps(state))
    assert process.running(here) == state
    here.process.write_text(json.dumps(state | {"started": 1}))
    assert process.running(here) is None
    here.process.write_text("{")
    assert process.running(here) is None


def test_the_fingerprint_changes_with_the_settings(tmp_path):
    here = Installation(tmp_path)
    first = process.fingerprint(here)
    assert process.fingerprint(here) == first
    here.environment.write_text('SAVEOS_LISTEN="127.0.0.1:1"\n')
    assert process.fingerprint(here) != first
