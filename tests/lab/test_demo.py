"""`make demo`: a fleet to look at, started once, told again, woken after a reboot, and gone without a trace."""

import contextlib
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from lab import ROOT, Lab, podman
from serving import until

pytestmark = pytest.mark.lab


def demo(command: str, directory: Path, code: int = 0, **settings: str) -> str:
    """Run scripts/demo.py and return all it says."""
    ran = subprocess.run(
        [sys.executable, ROOT / "scripts/demo.py", command, "--directory", directory],
        env=os.environ | settings,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
        check=False,
    )
    assert ran.returncode == code, ran.stdout
    return ran.stdout


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("demo") / "here"
    yield directory
    demo("down", directory)


@pytest.fixture(scope="module")
def told(directory: Path) -> str:
    """What the first start says from its address on."""
    text = demo("up", directory)
    assert "Ready after" in text
    return text[text.index("Dashboard") :]


@contextlib.contextmanager
def log_in(told: str, directory: Path) -> Iterator[httpx.Client]:
    """Log in with what was printed, trusting the printed CA alone."""
    address = re.search(r"^Dashboard +(https://\S+)$", told, re.M)
    login = re.search(r"^Log in as +(\S+), password (\S+)$", told, re.M)
    assert address and login, told
    trust = ssl.create_default_context(cafile=directory / "home/tls/ca.pem")
    with httpx.Client(
        base_url=address[1], headers={"Origin": address[1]}, trust_env=False, verify=trust
    ) as person:
        body = {"name": login[1], "password": login[2]}
        assert person.post("/api/v1/auth/login", json=body).is_success
        yield person


def test_it_is_enrolled_provisioned_and_backed_up(told: str, directory: Path) -> None:
    with log_in(told, directory) as person:
        hosts = {each["name"]: each for each in person.get("/api/v1/hosts").json()["items"]}
        assert set(hosts) == {"vault", "web", "db", "old"}
        assert {each["state"] for each in hosts.values()} == {"enrolled"}
        agents = [each for each in hosts.values() if each["is_agent"]]
        assert [each["protection"] for each in agents] == ["protected"] * 3
        archives = person.get("/api/v1/archives").json()["items"]
        assert sorted(each["host"] for each in archives) == ["db", "old", "web"]
        page = person.get("/")
        assert page.status_code == 200
        assert "vault" in person.get("/hosts").text


def test_a_second_start_changes_nothing(told: str, directory: Path) -> None:
    before = podman("ps", "-q", "--filter", "label=saveos.lab")
    assert demo("up", directory).lstrip() == told
    assert podman("ps", "-q", "--filter", "label=saveos.lab") == before


@pytest.mark.thorough
def test_a_reboot_is_slept_through(told: str, directory: Path) -> None:
    """Containers and controller are gone without a goodbye; the same command brings the same ones back."""
    for host in Lab.attach(directory).hosts.values():
        host.crash()
    (process,) = controllers(directory)
    os.kill(process, signal.SIGKILL)
    until(lambda: not controllers(directory), 10, "the end of the controller")
    said = demo("up", directory)
    assert "Starting the controller again" in said
    assert said[said.index("Dashboard") :] == told
    with log_in(told, directory) as person:
        hosts = person.get("/api/v1/hosts").json()["items"]
        asked = {"targets": {"hosts": [each["name"] for each in hosts]}, "mode": "run", "parameters": {}}
        job = person.post("/api/v1/maintenance/health", json=asked).json()["id"]
        final = until(lambda: person.get(f"/api/v1/jobs/{job}").json()["finished_at"], 90, "the health job")
        assert final
        assert person.get(f"/api/v1/jobs/{job}").json()["state"] == "succeeded"


def test_down_leaves_nothing(told: str, directory: Path) -> None:
    lab = Lab.attach(directory)
    assert "nothing of it is left" in demo("down", directory)
    assert not directory.exists()
    assert controllers(directory) == []
    assert podman("ps", "-aq", "--filter", f"label=saveos.lab={lab.id}") == ""
    assert lab.id not in podman("network", "ls", "-q")
    assert "There is no demo" in demo("down", directory)


def test_without_podman_it_says_what_to_install(directory: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh-keygen").symlink_to(shutil.which("ssh-keygen") or "")
    said = demo("up", directory, code=1, PATH=str(programs))
    assert said.startswith("demo: lab hosts need podman")
    assert "apt-get install" in said
    assert "Traceback" not in said


def controllers(directory: Path) -> list[int]:
    """Return the processes that serve the demo's home."""
    mark = b"SAVEOS_HOME=" + bytes(directory / "home")
    found = []
    for entry in Path("/proc").iterdir():
        try:
            serves = entry.name.isdigit() and b"\0serve\0" in (entry / "cmdline").read_bytes()
            if serves and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
