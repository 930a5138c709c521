"""A new installation key: every tenant's data key is wrapped anew, in one transaction; sealed values stay."""

import os
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos.accounts.models import Tenant
from saveos.core import security
from saveos.core.database import Database
from saveos.core.settings import Settings


class RotationError(Exception):
    """A rotation of the installation key that cannot be; the sentence says why."""


def rotate_key(settings: Settings) -> int:
    """Make a new installation key and wrap every data key with it; return how many. The controller is stopped.

    Killed at any point, `settle_key` finds which of both keys counts. Raises RotationError.
    """
    current, fresh = settings.home / "kek", settings.home / "kek.next"
    settle_key(settings)
    if os.environ.get("CREDENTIALS_DIRECTORY") or not current.is_file():
        raise RotationError(
            "the installation key is a systemd credential: make the new one where that is kept, or put it into "
            f"{current} (0400) first"
        )
    old, new = security.load_kek(settings.home), security.new_data_key()
    _write(fresh, new)
    database = Database(settings.sqlalchemy_url, old)
    try:
        with database.session(writes=True) as session:
            tenants = session.scalars(select(Tenant)).all()
            for tenant in tenants:
                where = _place(tenant)
                tenant.data_key = security.seal(new, security.unseal(old, tenant.data_key, where), where)
    finally:
        database.close()
    _put_in_force(fresh, current)
    return len(tenants)


def settle_key(settings: Settings) -> str:
    """Finish an interrupted rotation; return what was done, empty where there was none."""
    current, fresh = settings.home / "kek", settings.home / "kek.next"
    if not fresh.exists():
        return ""
    new = fresh.read_bytes()
    database = Database(settings.sqlalchemy_url, new)
    try:
        with database.session() as session:
            is_new = len(new) == security.KEY_BYTES and _opens(session, new)
    finally:
        database.close()
    if is_new:
        _put_in_force(fresh, current)
        return "finished"
    fresh.unlink()
    return "rolled back"


def _opens(session: Session, key: bytes) -> bool:
    tenant = session.scalar(select(Tenant).order_by(Tenant.id).limit(1))
    if tenant is None:
        return False
    try:
        security.unseal(key, tenant.data_key, _place(tenant))
    except security.CannotOpen:
        return False
    return True


def _place(tenant: Tenant) -> bytes:
    return security.place(tenant.id, "tenants", tenant.id, "data_key")


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def _put_in_force(fresh: Path, current: Path) -> None:
    fresh.replace(current)
    _sync(current.parent)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
