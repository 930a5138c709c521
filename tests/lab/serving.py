"""A real controller for the lab: `saveos serve`, spoken to through the real command and real HTTP."""

import contextlib
import functools
import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
FINAL = ("succeeded", "partial", "failed", "canceled", "timed_out", "lost")
Found = TypeVar("Found")


def until(look: Callable[[], Found], seconds: float, what: str) -> Found:
    """Return the first true value of `look`; fails after so many seconds, naming what never came."""
    deadline, pause = time.monotonic() + seconds, 0.2
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(pause)
        pause = min(0.6, pause * 1.2)  # a look takes time of the machine, too


def free_port(address: str) -> int:
    """Return a port that nothing listens on."""
    with socket.create_server((address, 0)) as listening:
        return int(listening.getsockname()[1])


class Controller:
    """One installation in its own home. Hosts must reach `address`: it is the lab network's gateway."""

    def __init__(self, home: Path, address: str, **settings: str) -> None:
        self.home = home
        self.url = f"https://{address}:{free_port(address)}"
        bare = {
            name: value for name, value in os.environ.items() if not name.startswith(("SAVEOS_", "ANSIBLE_"))
        }
        self.environment = bare | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "SAVEOS_HOME": str(home),
            "SAVEOS_LISTEN": self.url.removeprefix("https://"),
            **settings,
        }
        self.log = home.with_name(f"{home.name}.log")
        self.program: list[str | Path] = [BIN / "saveos", "serve"]
        self.process: subprocess.Popen[bytes] | None = None
        self.token = self.password = ""

    def start(self) -> None:
        """Start and wait until it answers; the first time log in as a person would."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.program,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        until(self.answers, 90, f"an answer of the controller; its log: {self.log}")
        if not self.token:
            self.command("login", "--url", self.url, stdin=f"{self.own_password()}\n")
            self.token = json.loads((self.home / "cli.json").read_text())["token"]

    @functools.cached_property
    def trust(self) -> ssl.SSLContext:
        """Trust the controller's own CA and no other."""
        return ssl.create_default_context(cafile=self.home / "tls" / "ca.pem")

    def own_password(self) -> str:
        """Log in with the one-time password and choose one, as the dashboard makes the admin do; return it.

        It is kept as `password` too.
        """
        once = (self.home / "admin-password").read_text().strip()
        chosen = self.password = "correct horse battery staple"
        with httpx.Client(
            base_url=f"{self.url}/api/v1", headers={"Origin": self.url}, trust_env=False, verify=self.trust
        ) as person:
            person.post("/auth/login", json={"name": "admin", "password": once}).raise_for_status()
            person.post("/auth/password", json={"current": once, "new": chosen}).raise_for_status()
        return chosen

    def answers(self) -> bool:
        """Whether /health answers; fails at once when the process has ended."""
        assert self.process
        assert self.process.poll() is None, f"saveos serve ended: {self.log.read_text()[-3000:]}"
        with contextlib.suppress(httpx.TransportError, FileNotFoundError):
            return httpx.get(f"{self.url}/health", timeout=2, trust_env=False, verify=self.trust).is_success
        return False

    def ssh_key(self) -> str:
        """Return the public SSH key that hosts must let in."""
        with sqlite3.connect(f"file:{self.home / 'saveos.db'}?mode=ro", uri=True) as database:
            return str(database.execute("select ssh_public_key from tenants").fetchone()[0])

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process with a signal and wait for it."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        self.process = None

    def kill(self) -> None:
        """kill -9 of this process alone."""
        self.stop(signal.SIGKILL)

    # ---- the two doors

    def command(self, *words: str, stdin: str = "", code: int | None = 0) -> Any:
        """Run `saveos --json …` and return what it prints, parsed; `code` is the exit code to expect."""
        ran = subprocess.run(
            [BIN / "saveos", "--json", *words],
            env=self.environment,
            input=stdin,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
        )
        said = f"saveos {' '.join(words)}: exit {ran.returncode}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}"
        assert code is None or ran.returncode == code, said
        try:
            return json.loads(ran.stdout)
        except ValueError:
            return {"stdout": ran.stdout, "stderr": ran.stderr, "code": ran.returncode}

    def http(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Send one request below /api/v1 with the admin's token."""
        own = {"Authorization": f"Bearer {self.token}", **headers}
        return self._client.request(method, f"{self.url}/api/v1{path}", json=body, headers=own)

    @functools.cached_property
    def _client(self) -> httpx.Client:
        """Keep connections, because a test asks for each job's state many times."""
        return httpx.Client(timeout=60, trust_env=False, verify=self.trust)

    def get(self, path: str) -> Any:
        """GET and parse."""
        answer = self.http("GET", path)
        assert answer.is_success, answer.text
        return answer.json()

    def items(self, path: str) -> list[dict[str, Any]]:
        """GET a list's first (long) page."""
        found: list[dict[str, Any]] = self.get(f"{path}{'&' if '?' in path else '?'}limit=200")["items"]
        return found

    def post(self, path: str, body: Any, status: int) -> Any:
        """POST and parse; `status` is what must come back."""
        answer = self.http("POST", path, body)
        assert answer.status_code == status, f"{answer.status_code}: {answer.text}"
        return answer.json()

    # ---- journeys

    def ask(self, operation: str, *hosts: str, mode: str = "run", **parameters: Any) -> dict[str, Any]:
        """Ask for an operation on hosts over HTTP and return the accepted job."""
        body = {"targets": {"hosts": list(hosts)}, "mode": mode, "parameters": parameters}
        job: dict[str, Any] = self.post(f"/maintenance/{operation}", body, 202)
        return job

    def ended(self, job: dict[str, Any] | str, seconds: float = 300) -> dict[str, Any]:
        """Wait for a job's final state and return the job with its hosts as `by_host`."""
        identity = job if isinstance(job, str) else job["id"]

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get(f"/jobs/{identity}")
            return found if found["state"] in FINAL else None

        found = until(look, seconds, f"the end of job {identity}: {self.get(f'/jobs/{identity}')}")
        return found | {"by_host": {row["name"]: row for row in self.items(f"/jobs/{identity}/hosts")}}

    def done(self, operation: str, *hosts: str, seconds: float = 300, **parameters: Any) -> dict[str, Any]:
        """Run an operation to its end and require that it succeeded."""
        job = self.ended(self.ask(operation, *hosts, **parameters), seconds)
        assert job["state"] == "succeeded", self.story(job)
        return job

    def story(self, job: dict[str, Any]) -> str:
        """Return a job's errors and log, for a failed assertion."""
        errors = {name: row["error"] for name, row in job["by_host"].items() if row["error"]}
        log = self.http("GET", f"/jobs/{job['id']}/log?format=text").text
        return f"{job['operation']} {job['state']}: {job['error_type']}: {job['error']} {errors}\n{log[-6000:]}"

    def counts(self, host: str) -> Counter[str]:
        """How many archives, runs and jobs of each operation a host has."""
        found = Counter(job["operation"] for job in self.items(f"/jobs?host={host}"))
        found["archives"] = len(self.items(f"/archives?host={host}"))
        found["runs"] = len(self.items(f"/runs?host={host}"))
        return found

    def events(self, job_id: str, seconds: float = 60) -> Iterator[tuple[float, str, Any]]:
        """Yield (monotonic time, event, data) of a job's stream until it ends."""
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "text/event-stream"}
        address = f"{self.url}/api/v1/jobs/{job_id}/events"
        with httpx.stream(
            "GET", address, headers=headers, timeout=seconds, trust_env=False, verify=self.trust
        ) as answer:
            event, data = "message", ""
            for line in answer.iter_lines():
                if line.startswith("event:"):
                    event = line[6:].strip()
                elif line.startswith("data:"):
                    data += line[5:].strip()
                elif not line:
                    if data or event == "end":
                        yield time.monotonic(), event, json.loads(data) if data else None
                    if event == "end":
                        return
                    event, data = "message", ""
