"""Run the controller in this process: serve, work, migrate."""

import logging
import os
import socket
from pathlib import Path

from pydantic import ValidationError

from saveos.cli import installation
from saveos.cli.errors import FAILED, REFUSED, USAGE, CommandError
from saveos.cli.process import port_sentence
from saveos.core.settings import Settings, get_settings

GRACE_SECONDS = 5  # an open event stream does not end by itself


def serve(with_worker: bool) -> None:
    """Serve until a signal comes. Raises CommandError when it cannot start."""
    import uvicorn

    settings = _private_settings()
    listening = _listen(settings.address)

    from saveos.app import create_app

    app = create_app()
    app.state.run_worker = with_worker
    _log_to_stderr(settings.log_level)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        date_header=True,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[listening])
    if not server.started:
        raise CommandError(
            "The controller could not start; the reason is above. `saveos doctor` looks at all it needs."
        )


def work() -> None:
    """Run jobs until a signal comes."""
    settings = _private_settings()
    _log_to_stderr(settings.log_level)

    from saveos import worker

    worker.run(settings)


def migrate() -> str:
    """Bring the database to the newest schema; return its revision."""
    from alembic.runtime.migration import MigrationContext

    from saveos import migrations
    from saveos.core.database import Database
    from saveos.core.security import load_kek

    settings = _private_settings()
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url, load_kek(settings.home))
    try:
        migrations.upgrade(database)
        with database.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() or "nothing"
    finally:
        database.close()


def _private_settings() -> Settings:
    """Return the settings of a home that is private; from here on this process makes private files only."""
    installation.current()
    settings = checked_settings()
    check_home(settings.home)
    os.umask(0o077)
    return settings


def checked_settings() -> Settings:
    """Return the settings. Raises CommandError that names the variable that is wrong."""
    try:
        return get_settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "SAVEOS_" + "_".join(str(part) for part in first["loc"]).upper()
        raise CommandError(f"{name}: {first['msg'].removeprefix('Value error, ')}.", USAGE) from error


def check_home(home: Path) -> None:
    """Raise CommandError when others can read the home, which holds the key of all secrets."""
    try:
        mode = home.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandError(f"{home} cannot be read: run this as root.", REFUSED) from error
    if mode & 0o066:
        raise CommandError(f"{home} can be read by others, and it holds secrets: chmod 0700 {home}", REFUSED)


def _listen(address: tuple[str, int]) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=2048)
    except OSError as error:
        raise CommandError(port_sentence(address, error), FAILED) from error


def _log_to_stderr(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for noisy in ("httpx", "httpcore", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
