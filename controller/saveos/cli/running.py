"""Run the controller in this process: serve, work, migrate."""

import logging
import os
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from saveos.cli import installation
from saveos.cli.errors import FAILED, REFUSED, USAGE, CommandError
from saveos.cli.process import port_sentence
from saveos.core.settings import Settings, get_settings

if TYPE_CHECKING:
    from saveos.core.tls import Keeper

GRACE_SECONDS = 5  # an open event stream does not end by itself


def serve(with_worker: bool) -> None:
    """Serve until a signal comes. Raises CommandError when it cannot start."""
    import uvicorn

    settings = private_settings()
    listening = _listen(settings.address)

    from saveos.app import create_app

    app = create_app()
    app.state.run_worker = with_worker
    _log_to_stderr(settings.log_level)
    context, keeper = _tls(settings)
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        ssl_context_factory=(lambda _config, _default: context) if context else None,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
        date_header=True,
    )
    server = uvicorn.Server(config)
    if keeper:
        keeper.start()
    try:
        server.run(sockets=[listening])
    finally:
        if keeper:
            keeper.stop()
    if not server.started:
        raise CommandError(
            "The controller could not start; the reason is above. `saveos doctor` looks at all it needs."
        )


def _tls(settings: Settings) -> "tuple[ssl.SSLContext, Keeper] | tuple[None, None]":
    """Return the listener's TLS context and what keeps its certificate new; nothing where it speaks HTTP."""
    if not settings.serves_tls:
        return None, None
    from saveos.core import tls

    def look() -> tls.Identity:
        return tls.ensure(settings.home, settings.tls_names)

    try:
        identity = look()
        context = tls.server_context(identity)
    except (tls.BrokenIdentity, OSError) as error:
        raise CommandError(f"{error}", FAILED) from error
    logging.getLogger(__name__).info("HTTPS with the controller's own CA, pin %s", identity.ca_pin)
    return context, tls.Keeper(context, identity, look)


def work() -> None:
    """Run jobs until a signal comes."""
    settings = private_settings()
    _log_to_stderr(settings.log_level)

    from saveos import worker

    worker.run(settings)


def migrate() -> str:
    """Bring the database to the newest schema; return its revision."""
    from alembic.runtime.migration import MigrationContext

    from saveos import migrations
    from saveos.core.database import Database
    from saveos.core.security import load_kek

    settings = private_settings()
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.sqlalchemy_url, load_kek(settings.home))
    try:
        migrations.upgrade(database)
        with database.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision() or "nothing"
    finally:
        database.close()


def private_settings() -> Settings:
    """Return the settings of a home that is private; from here on this process makes private files only."""
    installation.current()
    settings = checked_settings()
    check_home(settings.home)
    os.umask(0o077)
    if (settings.home / "kek.next").exists():  # a rotation of the installation key was interrupted
        from saveos.upkeep.keys import settle_key

        settle_key(settings)
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
    if not os.access(home, os.R_OK | os.X_OK):
        raise CommandError(f"{home} cannot be read: run this as root.", REFUSED)
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
