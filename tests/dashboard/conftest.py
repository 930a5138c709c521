"""A controller with a seeded fleet on a free port, and Chromium to look at it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # tests share helpers by their full name

from tests.dashboard.seed import PASSWORD, Seeded, seed  # noqa: E402

expect.set_options(timeout=30_000)  # of milliseconds: the lab keeps the machine busy meanwhile
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SERVE = """
import sys, uvicorn
from saveos.app import create_app
app = create_app()
app.state.run_worker = False
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=1)
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in Path(item.path).parents and "page" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@dataclass
class Controller:
    """A running controller and its database, which tests change as the engine would."""

    url: str
    database: Any
    made: Seeded
    home: Path

    def session(self) -> Any:
        return self.database.session()


def _missing(what: str) -> None:
    pytest.fail(what) if os.environ.get("CI") else pytest.skip(what)


@pytest.fixture(scope="session")
def assets() -> None:
    """The collected assets, made when they are not current."""
    subprocess.run([sys.executable, ROOT / "scripts/assets.py"], check=True)


def serve(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a controller without worker loops; return it when it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SAVEOS_")}
    environment["SAVEOS_HOME"] = str(home)
    environment["PYTHONPATH"] = str(ROOT / "controller")
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(port)], env=environment)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1)
            return process, url
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    process.kill()
    raise RuntimeError("the controller did not start")


@pytest.fixture(scope="session")
def installations(
    tmp_path_factory: pytest.TempPathFactory, assets: None
) -> Iterator[Callable[[int], Controller]]:
    """Give a running controller with so many seeded hosts; 0 is a fresh installation. Each is made once."""
    from saveos.core.settings import Settings
    from saveos.upkeep.opening import open_database

    made: dict[int, tuple[subprocess.Popen[bytes], Controller]] = {}

    def give(hosts: int) -> Controller:
        if hosts not in made:
            home = tmp_path_factory.mktemp(f"fleet{hosts}") / "home"
            database = open_database(Settings(home=home))
            seeded: Any = None
            if hosts:
                with database.session() as session:
                    seeded = seed(session, hosts)
            process, url = serve(home)
            made[hosts] = (process, Controller(url, database, seeded, home))
        return made[hosts][1]

    yield give
    for process, controller in made.values():
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        controller.database.close()


@pytest.fixture
def controller(installations: Callable[[int], Controller]) -> Controller:
    return installations(60)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        _missing("Chromium is missing: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Visitor:
    """A browser context of one person; the test fails on a console error that it did not expect."""

    context: BrowserContext
    url: str
    errors: list[str] = field(default_factory=list)
    _pages: set[str] = field(default_factory=set)

    def page(self) -> Page:
        page = self.context.new_page()
        page.on("console", lambda message: self._note(message) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("response", self._visited)
        return page

    def _note(self, message: Any) -> None:
        self.errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _visited(self, response: Any) -> None:
        if response.request.is_navigation_request():
            self._pages.add(response.url)

    def faults(self) -> list[str]:
        """Console errors, but those in which Chromium notes the status of a page that was asked for."""
        noted = tuple(f"({url})" for url in self._pages)
        return [each for each in self.errors if not ("Failed to load" in each and each.endswith(noted))]

    def log_in(self, name: str = "marie", password: str = PASSWORD) -> None:
        """Get a session over the API, which sets the same cookie as the form."""
        answer = self.context.request.post(
            f"{self.url}/api/v1/auth/login", data={"name": name, "password": password}
        )
        assert answer.ok, answer.text()

    def set(self, **cookies: str) -> None:
        self.context.add_cookies(
            [{"name": key, "value": value, "url": self.url} for key, value in cookies.items()]
        )


@pytest.fixture
def visit(browser: Browser, controller: Controller) -> Iterator[Callable[..., Visitor]]:
    """Open a browser context: visit(), or visit(name, width=390), or visit("") without log-in."""
    visitors: list[Visitor] = []

    def open_context(
        name: str = "marie",
        *,
        width: int = 1360,
        height: int = 860,
        at: Controller | None = None,
        **cookies: str,
    ) -> Visitor:
        context = browser.new_context(
            viewport={"width": width, "height": height}, timezone_id="Europe/Paris", locale="en-GB"
        )
        visitor = Visitor(context, (at or controller).url)
        visitor.set(**({"theme": "light", "lang": "en"} | cookies))
        if name:
            visitor.log_in(name)
        visitors.append(visitor)
        return visitor

    yield open_context
    for visitor in visitors:
        visitor.context.close()
        assert visitor.faults() == []


@pytest.fixture
def page(visit: Callable[..., Visitor]) -> Page:
    """A page of marie, an admin, in English and light."""
    return visit().page()


@pytest.fixture(scope="session")
def axe() -> Callable[[Page], list[Any]]:
    """Judge a page by WCAG 2.2 A and AA and best practice; returns the violations."""
    source = (ROOT / "node_modules/axe-core/axe.min.js").read_text()
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

    def judge(page: Page) -> list[Any]:
        page.evaluate(source)  # under the CSP a script tag would be refused
        options = json.dumps({"runOnly": rules, "resultTypes": ["violations"]})
        found = page.evaluate(f"axe.run({options}).then(({{violations}}) => violations)")
        return [
            (
                each["id"],
                each["impact"],
                [(node["target"], node["failureSummary"][:220]) for node in each["nodes"][:4]],
            )
            for each in found
        ]

    return judge


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Callable[[], tuple[int, str]]]:
    """Start a real sshd with a fresh host key; returns its port and the key's fingerprint."""
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    if not Path(program).exists():
        _missing("sshd is missing: apt install openssh-server")
    processes: list[subprocess.Popen[bytes]] = []

    def start() -> tuple[int, str]:
        key = tmp_path / "host_key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        shown = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True).stdout
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        Path("/run/sshd").mkdir(exist_ok=True)
        options = [f"-oListenAddress=127.0.0.1:{port}", f"-oPidFile={tmp_path / 'pid'}", "-f", "/dev/null"]
        processes.append(subprocess.Popen([program, "-D", "-h", str(key), *options]))
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        return port, shown.split()[1]

    yield start
    for process in processes:
        process.terminate()
        process.wait(10)
