"""An installation's database, opened; at the first start it is set up."""

import os
from pathlib import Path

from saveos import migrations
from saveos.accounts.service import FIRST_LOGIN_FILE, bootstrap
from saveos.core import security
from saveos.core.database import Database
from saveos.core.settings import Settings
from saveos.policies.service import ensure_default
from saveos.schedules.service import ensure_default as ensure_schedule


def open_database(settings: Settings) -> Database:
    """Make the home, load the KEK, migrate, do the first set-up. Raises ValueError on a bad KEK."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url, security.load_kek(settings.home))
    migrations.upgrade(database)
    with database.session(writes=True) as session:
        made = bootstrap(session)
        ensure_default(session, made.tenant_id)
        ensure_schedule(session, made.tenant_id)
        if made.password:
            _write_private(settings.home / FIRST_LOGIN_FILE, made.password)
    return database


def _write_private(path: Path, content: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{content}\n")
