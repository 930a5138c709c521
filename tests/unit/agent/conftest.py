"""The agent as a module, a configured host, and the real borg and borgmatic of the built bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.packed import Packed

CHECKOUT = Path(__file__).parents[3]
REPOSITORY = "0193aaaa-0000-7000-8000-000000000001"
PASSPHRASE = "canary-passphrase-7f3a"


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """The agent as hosts have it: packed into one file, and imported from there."""
    return Packed(CHECKOUT / "roles/agent/files/saveos_agent", tmp_path_factory.mktemp("agent"))


@pytest.fixture
def host(tmp_path: Path, agent: Packed) -> SimpleNamespace:
    """A host without systemd: its configuration, and the agent's settings for it."""
    return make_host(tmp_path, agent, "borg", "borgmatic")


def make_host(base: Path, agent: Packed, borg: str, borgmatic: str, url: str = "") -> SimpleNamespace:
    etc = base / "etc"
    (etc / "borgmatic").mkdir(parents=True)
    (etc / "repositories" / REPOSITORY).mkdir(parents=True)
    (etc / "repositories" / REPOSITORY / "passphrase").write_text(PASSPHRASE + "\n")
    (etc / "token").write_text("canary-token-11aa22bb\n")
    config = etc / "borgmatic" / f"{REPOSITORY}.yaml"
    config.write_text("repositories: []\n")
    data = {"schema": 1, "host": "one", "host_id": "h1", "init": "none", "borg": borg, "borgmatic": borgmatic}
    data["state_dir"], data["run_dir"] = str(base / "state"), str(base / "run")
    data["controller"] = {"url": url, "ca": ""}
    repository = {"id": REPOSITORY, "kind": "local", "url": str(base / "repository"), "label": "main"}
    data["repositories"] = [{**repository, "config": f"etc/borgmatic/{REPOSITORY}.yaml"}]
    (etc / "agent.json").write_text(json.dumps(data))
    (base / "state").mkdir()
    return SimpleNamespace(
        base=base, etc=etc, config=config, settings=agent.load_settings(etc), program=agent.program
    )


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """borg and borgmatic: of SAVEOS_TEST_BORG's directory, else of the built bundle."""
    directory = os.environ.get("SAVEOS_TEST_BORG")
    bundles = sorted((CHECKOUT / ".build/bundle").glob(f"saveos-bundle-{os.uname().machine}.tar.gz"))
    if directory is None and bundles:
        unpacked = tmp_path_factory.mktemp("bundle")
        subprocess.run(["tar", "-xzf", bundles[0], "-C", unpacked], check=True)
        directory = str(unpacked)
    if directory is None:
        sentence = (
            "no agent bundle in .build/bundle: build it with scripts/bundle.py to test with the real borg"
        )
        pytest.fail(sentence) if os.environ.get("CI") else pytest.skip(sentence)
    borg = tmp_path_factory.mktemp("programs") / "borg"
    # a fifth of a short command is Borg testing itself
    borg.write_text(f'#!/bin/sh\nBORG_SELFTEST=disabled exec {directory}/borg "$@"\n')
    borg.chmod(0o755)
    return str(borg), f"{directory}/borgmatic"


class Backed:
    """A host with a real local repository, driven through the agent's command line."""

    def __init__(self, host: SimpleNamespace, sources: Path) -> None:
        self.etc, self.base, self.config, self.settings = host.etc, host.base, host.config, host.settings
        self.sources = sources
        self.program = host.program

    def configure(self, extra: str = "") -> None:
        credential = self.etc / "repositories" / REPOSITORY / "passphrase"
        self.config.write_text(
            f"repositories:\n- path: {self.base / 'repository'}\n"
            f"source_directories:\n- {self.sources}\n"
            f'encryption_passphrase: "{{credential file {credential}}}"\n'
            f"local_path: {self.settings.borg}\n"
            f"borg_base_directory: {self.base / 'state/borg'}\n"
            "unsafe_skip_path_validation_before_create: true\n"
            "bootstrap:\n  store_config_files: false\n" + extra
        )

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.program), "--config", str(self.etc), "--json", *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.argv(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> tuple[int, dict]:
        done = subprocess.run(self.argv(*arguments), capture_output=True, text=True, timeout=120, check=False)
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def archives(self) -> list[str]:
        return [item["name"] for item in self.run("snapshots")[1]["items"]]


def at_rest(base: Path, seconds: float = 60) -> None:
    """Wait until nothing works for a host any more: retention and what is told follow a run's record."""
    deadline = time.monotonic() + seconds
    while busy := [pid for pid in Path("/proc").glob("[0-9]*") if os.fsencode(base) in _command_line(pid)]:
        assert time.monotonic() < deadline, busy
        time.sleep(0.05)


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


class Stages:
    """States of a host that are reached once, and copied for every further test.

    The host lies at one path in all tests of a process, because archives and Borg's caches hold absolute paths.
    """

    def __init__(self, base: Path, kept: Path) -> None:
        self.base, self.kept = base, kept

    def reach(self, name: str, make: Callable[[], None]) -> None:
        """Bring the host to a stage: from its copy, else by `make`, once."""
        copy = self.kept / name
        if not copy.exists():
            make()
            at_rest(self.base)
            subprocess.run(["cp", "-a", self.base, copy], check=True)
            return
        self.clear()
        subprocess.run(["cp", "-a", f"{copy}/.", self.base], check=True)

    def clear(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)
        self.base.mkdir()


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(tmp_path_factory.mktemp("host"), tmp_path_factory.mktemp("stages"))


@pytest.fixture
def backed(stages: Stages, agent: Packed, programs: tuple[str, str]) -> Iterator[Backed]:
    stages.clear()
    base, sources = stages.base, stages.base / "sources"
    found = Backed(make_host(base, agent, *programs), sources)
    found.configure()

    def initialise() -> None:
        (sources / "sub").mkdir(parents=True)
        (sources / "plain").write_text("plain\n")
        (sources / "sub" / "new\nline").write_text("odd\n")
        os.mkfifo(sources / "fifo")
        (sources / "link").symlink_to("plain")
        environment = {**os.environ, "BORG_PASSPHRASE": PASSPHRASE, "BORG_BASE_DIR": str(base / "state/borg")}
        init = [programs[0], "init", "--encryption", "repokey-blake2", str(base / "repository")]
        subprocess.run(init, env=environment, check=True, capture_output=True)
        assert found.run("snapshots")[0] == 0  # from here on it knows what runs there, and how

    stages.reach("initialised", initialise)
    yield found
    found.run("backup", "--stop")
    at_rest(base)  # else it writes where the next test lays its files


@pytest.fixture
def saved(backed: Backed, stages: Stages) -> Backed:
    """A host whose tree of four odd entries is in one archive, with the agent's record of it."""

    def back_up() -> None:
        code, record = backed.run("backup", "--wait")
        assert code == 0, record

    stages.reach("saved", back_up)
    return backed
