"""The controller's own backup: everything that a new machine needs to go on, in one directory.

A consistent copy of the database and the catalogue while both are in use, and the keys: sealed to the recovery
key where that is offline, else plain, since a managed key's private half is in this very database. The host
that the controller runs on backs the directory up like any other.
"""

import base64
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, delete, select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from saveos import __version__
from saveos.accounts.models import Login, Tenant, Token
from saveos.accounts.service import first_tenant, record
from saveos.archives.catalogue import copy_stores
from saveos.core import sealing, security
from saveos.core.clock import now
from saveos.core.database import Database
from saveos.core.settings import Settings
from saveos.enrolment.models import EnrolmentToken
from saveos.policies import models as _policies  # noqa: F401 - hosts name their policy; a command alone has no app
from saveos.secrets.models import RecoveryKey
from saveos.secrets.service import current_key

SCHEMA = 1
DATABASES = ("saveos.db", "saveos.pgdump")
KEY_FILES = ("kek", "tls/ca.key", "tls/ca.pem", "tls/server.key", "tls/server.pem", "environment")
BLOCK = 1024 * 1024
PG_SECONDS = 3600
HALF_MADE = 86_400.0  # seconds after which nobody works at an export any more


class ExportError(Exception):
    """An export or restore that cannot be; the sentence says why and what to do."""


@dataclass
class Manifest:
    """What an export holds. `keys` is how its keys are kept: `sealed` (to `recovery_key`) or `plain`."""

    at: str
    version: str
    revision: str
    database: str
    keys: str
    recovery_key: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    schema: int = SCHEMA


def export(settings: Settings, target: Path, *, catalogue: bool = True) -> Manifest:
    """Write an export in place of the one before. Raises ExportError, OSError.

    A reader finds one or the other, or for a moment none. What a killed one left is put right first.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _mend(target)
    fresh = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    try:
        manifest = _write(settings, fresh, catalogue)
        _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return manifest


def _mend(target: Path) -> None:
    """Put right what killed exports left: a half made one is as large as a whole one, and may hold keys."""
    former = _former(target)
    if former.exists() and not target.exists():
        former.rename(target)  # it was killed between two renames
    for left in target.parent.glob(f".{target.name}-*"):
        if time.time() - left.stat().st_mtime > HALF_MADE:  # else another export is at work
            shutil.rmtree(left, ignore_errors=True)


def _former(target: Path) -> Path:
    return target.with_name(f".{target.name}-former")


def _write(settings: Settings, fresh: Path, catalogue: bool) -> Manifest:
    database = Database(settings.sqlalchemy_url, security.load_kek(settings.home))
    try:
        name = _copy_database(settings, database.engine, fresh)
        with database.session() as session:
            key = _recovery_key(session)
            for tenant_id in session.scalars(select(Tenant.id)) if catalogue else ():
                copy_stores(session, settings.home, tenant_id, fresh)
        with database.engine.connect() as connection:
            revision = MigrationContext.configure(connection).get_current_revision() or ""
    finally:
        database.close()
    manifest = Manifest(now().isoformat(), __version__, revision, name, "plain")
    _write_keys(settings.home, fresh, key, manifest)
    manifest.files = {name: {"sha256": digest, "bytes": size} for name, digest, size in sorted(_digests(fresh))}
    _private(fresh / "manifest.json", json.dumps(asdict(manifest), indent=1).encode() + b"\n")
    return manifest


def _copy_database(settings: Settings, engine: Engine, fresh: Path) -> str:
    if engine.dialect.name == "sqlite":
        _copy_sqlite(Path(str(engine.url.database)), fresh / "saveos.db")
        return "saveos.db"
    url = make_url(settings.sqlalchemy_url)
    argv = ["pg_dump", "--format=custom", "--no-owner", f"--file={fresh / 'saveos.pgdump'}"]
    _postgres(argv, url)
    (fresh / "saveos.pgdump").chmod(0o600)
    return "saveos.pgdump"


def _postgres(argv: list[str], url: Any) -> None:
    """Run a program of PostgreSQL's client; the password goes by its environment, not by its arguments."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SAVEOS_")}
    for name, value in (
        ("PGHOST", url.host),
        ("PGPORT", url.port),
        ("PGUSER", url.username),
        ("PGPASSWORD", url.password),
        ("PGDATABASE", url.database),
        *((f"PG{key.upper()}", value) for key, value in url.query.items() if key in ("host", "sslmode")),
    ):
        if value:
            environment[name] = str(value)
    try:
        done = subprocess.run(
            argv, env=environment, capture_output=True, text=True, timeout=PG_SECONDS, check=False
        )
    except FileNotFoundError:
        raise ExportError(f"{argv[0]} is not installed: apt-get install postgresql-client") from None
    if done.returncode:
        raise ExportError(f"{argv[0]} failed: {done.stderr.strip()[-500:]}")


def _copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database that is in use, consistently, without holding up its writers."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=60)) as reading,
        closing(sqlite3.connect(target)) as writing,
    ):
        reading.backup(writing, pages=2000, sleep=0.01)
        writing.execute("PRAGMA journal_mode=DELETE")
    target.chmod(0o600)


def _recovery_key(session: Session) -> RecoveryKey | None:
    """Return the first tenant's recovery key: the one of who runs the installation."""
    first = first_tenant(session)
    return current_key(session, first.id) if first else None


def _write_keys(home: Path, fresh: Path, key: RecoveryKey | None, manifest: Manifest) -> None:
    found = {name: (home / name).read_bytes() for name in KEY_FILES if (home / name).is_file()}
    if "kek" not in found:
        found["kek"] = security.load_kek(home)  # a systemd credential
    if key is None or key.mode != "offline":
        for name, content in found.items():
            _private(fresh / "keys" / name, content)
        return
    text = json.dumps({name: base64.b64encode(content).decode() for name, content in found.items()})
    manifest.keys, manifest.recovery_key = "sealed", key.fingerprint
    _private(fresh / "keys.sealed", base64.b64encode(sealing.seal(text.encode(), key.public_key)) + b"\n")


def _digests(directory: Path) -> Iterator[tuple[str, str, int]]:
    for path in directory.rglob("*"):
        if path.is_file() and path.name != "manifest.json":
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield str(path.relative_to(directory)), digest, path.stat().st_size


def _private(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _swap(fresh: Path, target: Path) -> None:
    former = _former(target)
    shutil.rmtree(former, ignore_errors=True)
    if target.exists():
        target.rename(former)
    fresh.rename(target)
    shutil.rmtree(former, ignore_errors=True)


def read_manifest(source: Path) -> Manifest:
    """Return an export's manifest. Raises ExportError where there is none of ours."""
    try:
        manifest = Manifest(**json.loads((source / "manifest.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ExportError(f"{source} is no export of a controller: {error}") from None
    if manifest.schema != SCHEMA:
        raise ExportError(f"{source} was made by version {manifest.version}: install that or a newer one")
    return manifest


def check(source: Path) -> Manifest:
    """Return the manifest of an export whose files are all there and whole. Raises ExportError."""
    manifest = read_manifest(source)
    there = {name: digest for name, digest, _ in _digests(source)}
    for name, told in manifest.files.items():
        if there.get(name) != told["sha256"]:
            raise ExportError(f"{source / name} is missing or damaged: take another archive")
    return manifest


def restore(settings: Settings, source: Path, private_key: str = "") -> Manifest:
    """Bring an export back into an empty home. Raises ExportError, with nothing put in place.

    Every session, API token, enrolment token and agent token of the export is void: one that was revoked
    after it was made must not come back. Hosts get theirs again when they are provisioned.
    """
    manifest = check(source)
    home = settings.home
    if any((home / name).exists() for name in ("kek", "saveos.db")):
        raise ExportError(
            f"{home} holds an installation already: restore into another SAVEOS_HOME, or move it away"
        )
    keys = _open_keys(source, manifest, private_key)
    is_file = settings.sqlalchemy_url.startswith("sqlite")
    if is_file != (manifest.database == "saveos.db"):
        kind = "SQLite" if manifest.database == "saveos.db" else "PostgreSQL"
        raise ExportError(f"the export is of {kind}: set SAVEOS_DATABASE_URL to such a database")
    if not is_file:  # in one transaction, before anything is put in place
        url = make_url(settings.sqlalchemy_url)
        argv = ["pg_restore", "--no-owner", "--exit-on-error", "--single-transaction"]
        _postgres([*argv, f"--dbname={url.database}", str(source / manifest.database)], url)
        _void(settings.sqlalchemy_url, keys["kek"])
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if (source / "catalogue").is_dir():
        shutil.copytree(source / "catalogue", home / "catalogue", dirs_exist_ok=True)
    for name, content in keys.items():
        _private(home / name, content)
    (home / "kek").chmod(0o400)
    if is_file:
        aside = home / "saveos.db.restoring"
        shutil.copyfile(source / manifest.database, aside)
        aside.chmod(0o600)
        _void(f"sqlite:///{aside}", keys["kek"])
        aside.rename(home / "saveos.db")
    return manifest


def _open_keys(source: Path, manifest: Manifest, private_key: str) -> dict[str, bytes]:
    if manifest.keys == "plain":
        root = source / "keys"
        found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    else:
        if not private_key:
            raise ExportError(
                f"its keys are sealed to the recovery key {manifest.recovery_key[:16]}: name the file with the "
                "private half (--key FILE)"
            )
        sealed = base64.b64decode((source / "keys.sealed").read_bytes())
        try:
            text = sealing.open_sealed(sealed, private_key)
        except sealing.WrongKey as error:
            raise ExportError(f"the keys of the export do not open: {error}") from None
        found = {name: base64.b64decode(content) for name, content in json.loads(text).items()}
    if len(found.get("kek", b"")) != security.KEY_BYTES or not set(found) <= set(KEY_FILES):
        raise ExportError(f"{source} has no usable installation key: take another archive")
    return found


def _void(url: str, kek: bytes) -> None:
    """End every session and token that the export holds, and say so in the audit trail."""
    database = Database(url, kek)
    try:
        with database.session(writes=True) as session:
            for table in (Login, Token):
                session.execute(delete(table))
            for row in session.scalars(select(EnrolmentToken)):
                row.revoked_at = row.revoked_at or now()
            for tenant_id in session.scalars(select(Tenant.id)).all():
                record(session, tenant_id, "saveos", "restore controller", "tokens and sessions ended")
        if database.is_sqlite:
            with database.engine.connect() as connection:
                connection.exec_driver_sql("COMMIT")
                connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
    finally:
        database.close()


def is_due(target: Path, every: timedelta, at: datetime) -> bool:
    """Whether the export in a directory is older than `every`, or absent."""
    try:
        made = datetime.fromisoformat(read_manifest(target).at)
    except (ExportError, ValueError):
        return True
    return at - made >= every
