"""What must hold before `saveos up` changes anything; each failure is one sentence."""

import os
import re
import shutil
from pathlib import Path

from saveos.cli import installation, leftovers, process
from saveos.cli.errors import REFUSED, USAGE, CommandError
from saveos.cli.installation import Installation
from saveos.cli.running import checked_settings

HOME_MEGABYTES = 300
OURS = {"kek", "saveos.db", "installation.json", "storage", "agent", "cli.json"}


def need_root(command: str) -> None:
    """Raise CommandError unless root runs this."""
    if os.geteuid():
        raise CommandError(
            f"`saveos {command}` changes the system and needs root: sudo {process.program()} {command}", REFUSED
        )


def check(sources: list[Path]) -> Installation:
    """Return the installation that can be set up here. Raises CommandError with what is in the way."""
    need_root("up")
    for source in sources:
        if not source.is_absolute() or not source.is_dir():
            raise CommandError(
                f"{source} is no directory here: name existing directories by absolute path.", USAGE
            )
    here = installation.current()
    if not re.fullmatch(r"/[A-Za-z0-9._/-]+", str(here.home)):
        raise CommandError(
            f"SAVEOS_HOME may hold letters, digits and . _ - / only, not {str(here.home)!r}.", USAGE
        )
    settings = checked_settings()
    _check_home(here.home)
    if here.instance:
        _check_way_in(here.home)
    # What a deleted installation left is removed before the controller starts, which looks at its port again.
    if not process.running(here) and not leftovers.deleted():
        process.refuse_used_port(local_url(settings.address, tls=settings.serves_tls))
    return here


def local_url(address: tuple[str, int], *, tls: bool = False) -> str:
    """Return the controller's URL as seen on this machine."""
    host, port = address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _check_home(home: Path) -> None:
    if home.exists() and not home.is_dir():
        raise CommandError(f"SAVEOS_HOME is {home}, which is no directory: choose another.", USAGE)
    if home.is_dir() and any(home.iterdir()) and not OURS & set(os.listdir(home)):  # noqa: PTH208
        raise CommandError(f"{home} holds other files: choose an empty or new directory as SAVEOS_HOME.", USAGE)
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free // 1_000_000
    if free < HOME_MEGABYTES:
        raise CommandError(
            f"Only {free} MB are free at {existing}, and {HOME_MEGABYTES} MB are needed: free some, "
            "or set SAVEOS_HOME to another disk."
        )
    if not os.access(existing, os.W_OK):
        raise CommandError(f"{existing} cannot be written: set SAVEOS_HOME to a directory that can.")


def _check_way_in(home: Path) -> None:
    """The storage server's user, who is not root, must reach its repositories below the home."""
    closed = [path for path in home.parents if path.exists() and not path.stat().st_mode & 0o001]
    if closed and not shutil.which("setfacl"):
        raise CommandError(
            f"SAVEOS_HOME lies under {closed[0]}, which only its owner may enter, and the storage server's "
            "user must reach its repositories: install the package acl, or choose another SAVEOS_HOME",
            USAGE,
        )
