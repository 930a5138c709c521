"""Fixtures that unit and API tests share: both databases, one application, and people to ask it."""

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ENGINES = ("sqlite", "postgresql")
POSTGRES = "/usr/lib/postgresql/*/bin/initdb"
URL = "http://controller.test"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore:Using `httpx` with `starlette.testclient`")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--one-engine",
        action="store_true",
        help="run each test that needs a database on one engine, half of them on each; else on both",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked thorough, and with --one-engine half of what both engines would run.

    SAVEOS_TEST_ALL=1 leaves nothing out.
    """
    if os.environ.get("SAVEOS_TEST_ALL"):
        return
    one_engine = config.getoption("one_engine")
    left_out = {
        item
        for item in items
        if item.get_closest_marker("thorough") or (one_engine and _is_of_the_other_engine(item))
    }
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _is_of_the_other_engine(item: pytest.Item) -> bool:
    """Whether a test on both engines is to run on the other one; its name decides, so each run is the same."""
    if item.get_closest_marker("both_engines"):
        return False
    kind = getattr(item, "callspec", None) and item.callspec.params.get("database_kind")  # type: ignore[attr-defined]
    name = item.nodeid.replace(str(kind), "")
    return kind is not None and kind != ENGINES[zlib.crc32(name.encode()) % 2]


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> None:
    """Hash passwords with little memory and time: here they protect nobody."""
    from pwdlib import PasswordHash
    from pwdlib.hashers.argon2 import Argon2Hasher
    from saveos.core import security

    security._passwords = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=64, parallelism=1),))


class Cluster:
    """A private PostgreSQL: in a temporary directory, on a Unix socket, without fsync; ends with the tests."""

    def __init__(self, binaries: Path) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="saveos-pg-"))
        self._user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(self.directory, "postgres")
        data = f"{self.directory}/data"
        initdb = [str(binaries / "initdb"), "-D", data, "-N", "-A", "trust", "-U", "saveos", "-E", "UTF8"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, cwd="/", **self._user)
        options = [
            "-k",
            str(self.directory),
            "-c",
            "listen_addresses=",
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=32MB",
        ]
        with (self.directory / "log").open("wb") as log:
            self._server = subprocess.Popen(
                [str(binaries / "postgres"), "-D", data, *options],
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - before the first thread
                **self._user,
            )
        self._wait()

    def _wait(self) -> None:
        import psycopg

        for _ in range(300):
            try:
                psycopg.connect(f"host={self.directory} user=saveos dbname=postgres").close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise RuntimeError((self.directory / "log").read_text())

    def url(self, name: str) -> str:
        return f"postgresql+psycopg://saveos@/{name}?host={self.directory}"

    def create(self, name: str, template: str = "template0") -> str:
        import psycopg

        with psycopg.connect(
            f"host={self.directory} user=saveos dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)

    def drop(self, name: str) -> None:
        import psycopg

        with psycopg.connect(
            f"host={self.directory} user=saveos dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    def stop(self) -> None:
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(30)
        shutil.rmtree(self.directory)


def _end_with_parent() -> None:
    """Let the kernel end this process when its parent is killed (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGQUIT)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A private PostgreSQL; without its programs the test is skipped, under CI it fails."""
    found = sorted(Path("/").glob(POSTGRES.lstrip("/")))
    if not found:
        reason = "PostgreSQL's server programs are missing: apt install postgresql"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    cluster = Cluster(found[-1].parent)
    yield cluster
    cluster.stop()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def empty_database_url(database_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a database without tables, on SQLite and on PostgreSQL."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    cluster = request.getfixturevalue("cluster")
    name = f"t{uuid.uuid4().hex}"
    yield cluster.create(name)
    cluster.drop(name)


@dataclass(frozen=True)
class Template:
    """An installation just set up, to be copied for each test: its files, and its admin's token."""

    home: Path
    token: str
    tenant_id: uuid.UUID


def _set_up(home: Path, url: str) -> Template:
    """Do what the application does at its first start, and make a token for the admin."""
    from saveos.accounts import service
    from saveos.accounts.models import User
    from saveos.core.settings import Settings
    from saveos.upkeep.opening import open_database

    database = open_database(Settings(home=home, database_url=url))
    with database.session() as session:
        made = service.bootstrap(session)
        admin = session.get_one(User, made.user_id)
        _, token = service.create_token(session, made.tenant_id, admin, "tests", ["*"])
    database.close()
    return Template(home, token, made.tenant_id)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return _set_up(tmp_path_factory.mktemp("template") / "home", "")


@pytest.fixture(scope="session")
def postgresql_template(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Template:
    return _set_up(tmp_path_factory.mktemp("template") / "home", cluster.create("template_saveos"))


@pytest.fixture
def installation(
    database_kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[SimpleNamespace]:
    """An installation just set up (home, url, token, tenant_id), and the settings that name it."""
    from saveos.core.settings import get_settings

    template: Template = request.getfixturevalue(f"{database_kind}_template")
    home = tmp_path / "home"
    shutil.copytree(template.home, home)
    with ExitStack() as stack:
        url = f"sqlite:///{home / 'saveos.db'}"
        if database_kind == "postgresql":
            cluster = request.getfixturevalue("cluster")
            name = f"t{uuid.uuid4().hex}"
            url = cluster.create(name, "template_saveos")
            stack.callback(cluster.drop, name)
        for key in [key for key in os.environ if key.startswith("SAVEOS_")]:
            monkeypatch.delenv(key)
        monkeypatch.setenv("SAVEOS_HOME", str(home))
        monkeypatch.setenv("SAVEOS_DATABASE_URL", url)
        monkeypatch.setenv("SAVEOS_URL", URL)
        get_settings.cache_clear()
        yield SimpleNamespace(home=home, url=url, token=template.token, tenant_id=template.tenant_id)
        get_settings.cache_clear()


@pytest.fixture
def database_url(installation: SimpleNamespace) -> str:
    """URL of a database just set up, on SQLite and on PostgreSQL."""
    return str(installation.url)


@pytest.fixture
def database(installation: SimpleNamespace) -> Iterator[Any]:
    """An open database, just set up."""
    from saveos.core.database import Database
    from saveos.core.security import load_kek

    database = Database(installation.url, load_kek(installation.home))
    yield database
    database.close()


@pytest.fixture
def session(database: Any) -> Iterator[Any]:
    """A session on a database just set up; what it writes is rolled back."""
    with database.sessions() as session:
        yield session


@pytest.fixture
def tenant_id(installation: SimpleNamespace) -> uuid.UUID:
    return installation.tenant_id  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def application() -> Any:
    """The application, made once; each test starts it on its own installation, without worker loops."""
    from saveos.app import create_app

    app = create_app()
    app.state.run_worker = False
    return app


class Api:
    """The application as its callers see it. Without `token` a call is the admin's."""

    def __init__(self, client: Any, installation: SimpleNamespace) -> None:
        self.client = client
        self.token = installation.token
        self.tenant_id = installation.tenant_id

    @property
    def database(self) -> Any:
        return self.client.app.state.saveos.database

    def call(
        self, method: str, path: str, *, token: str | None = None, headers: Any = None, **rest: Any
    ) -> Any:
        token = self.token if token is None else token
        sent = ({"Authorization": f"Bearer {token}"} if token else {}) | (headers or {})
        path = (
            path
            if path.startswith(("/api/", "/enrol.sh", "/enrol/", "/health", "/metrics", "/docs", "/openapi"))
            else f"/api/v1{path}"
        )
        return self.client.request(method, path, headers=sent, **rest)

    def get(self, path: str, **rest: Any) -> Any:
        return self.call("GET", path, **rest)

    def post(self, path: str, body: Any = None, **rest: Any) -> Any:
        return self.call("POST", path, json=body, **rest)

    def patch(self, path: str, body: Any, **rest: Any) -> Any:
        return self.call("PATCH", path, json=body, **rest)

    def delete(self, path: str, **rest: Any) -> Any:
        return self.call("DELETE", path, **rest)

    def made(self, path: str, body: Any) -> dict[str, Any]:
        """POST something that must succeed, and return it."""
        answer = self.post(path, body)
        assert answer.status_code in (200, 201, 202), answer.text
        return answer.json()  # type: ignore[no-any-return]

    def token_of(self, role: str) -> str:
        """Return a token of a new user with this role."""
        from saveos.accounts import service

        with self.database.session() as session:
            user, _ = service.create_user(
                session, self.tenant_id, f"{role}-{uuid.uuid4().hex[:8]}", role, "secret-word-1"
            )
            return service.create_token(session, self.tenant_id, user, "t", ["*"])[1]

    def agent_token(self, host_id: str, tenant_id: uuid.UUID | None = None) -> str:
        """Return a token that a host made for itself."""
        from saveos.accounts import service
        from saveos.core.security import new_token, token_hash

        token = new_token("agent")
        with self.database.session() as session:
            tenant = tenant_id or self.tenant_id
            service.set_agent_token(session, tenant, uuid.UUID(host_id), "host", token_hash(token))
        return token

    def other_tenant(self) -> SimpleNamespace:
        """Make a second tenant with an admin; return its id and the admin's token."""
        from saveos.accounts import keys, service

        with self.database.session() as session:
            tenant = keys.make_tenant(session, f"other-{uuid.uuid4().hex[:8]}")
            user, _ = service.create_user(session, tenant.id, f"root-{tenant.name}", "admin", "secret-word-1")
            token = service.create_token(session, tenant.id, user, "t", ["*"])[1]
            return SimpleNamespace(id=tenant.id, token=token)


@pytest.fixture
def api(application: Any, installation: SimpleNamespace) -> Iterator[Api]:
    """The running application."""
    from saveos.accounts.throttle import login_throttle
    from starlette.testclient import TestClient

    login_throttle.__init__()  # type: ignore[misc]  # failures of an earlier test count for nobody
    with TestClient(application, base_url=URL) as client:
        yield Api(client, installation)


@pytest.fixture
def host_key() -> Callable[[], str]:
    """Return a function that makes a new SSH host key, "type base64"."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    def make() -> str:
        public = Ed25519PrivateKey.generate().public_key()
        return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()

    return make
