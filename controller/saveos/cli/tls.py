"""Commands about the controller's own CA and certificate."""

from typing import Any

import typer

from saveos.cli import output
from saveos.cli.client import Client
from saveos.cli.common import examples, group
from saveos.cli.errors import FAILED, REFUSED, CommandError

tls = group("The controller's own CA and certificate.")

FIELDS = {
    "CA pin": "ca_pin",
    "key pin": "key_pin",
    "names": "names",
    "ends": lambda found: output.when(found["not_after"]),
    "CA ends": lambda found: output.when(found["ca_not_after"]),
}


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(tls, name="tls")


@tls.command("show", epilog=examples("saveos tls show", "saveos tls show --json"))
def show() -> None:
    """Show the pins by which hosts and people trust the controller, and when its certificate ends.

    `CA pin` is for `saveos login --ca-pin`, `key pin` for `curl --pinnedpubkey`. On the controller's machine
    they are read from its home, elsewhere asked from a controller that is trusted already.
    """
    output.fields(_local() or Client().get("/system/tls"), FIELDS)


@tls.command("renew", epilog=examples("saveos tls renew"))
def renew() -> None:
    """Make a new certificate now, on the controller's machine. Pins stay, so nobody has to do anything.

    The controller renews by itself 30 days before the end; a running one takes up this one within a minute.
    """
    from saveos.cli.running import private_settings
    from saveos.core import tls as core

    settings = private_settings()
    if not settings.serves_tls:
        raise CommandError(
            f"The controller at {settings.listen} speaks no HTTPS itself, so it has no certificate: "
            "set SAVEOS_TLS=on.",
            REFUSED,
        )
    try:
        core.ensure(settings.home, settings.tls_names, renew=True)
    except (core.BrokenIdentity, OSError) as error:
        raise CommandError(f"{error}", FAILED) from error
    output.fields(_local() or {}, FIELDS)


def _local() -> dict[str, Any] | None:
    """Return what the home says, or None where this is not the controller's machine or it serves no TLS."""
    from saveos.cli.running import checked_settings
    from saveos.core import tls as core

    try:
        found = core.current(checked_settings().home)
    except (core.BrokenIdentity, OSError) as error:
        raise CommandError(f"{error}", FAILED) from error
    return found.as_dict() if found else None
