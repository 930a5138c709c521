"""`saveos doctor`: look at everything the controller needs, change nothing."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from saveos.cli import installation, leftovers, local_ssh, process
from saveos.cli.common import FLEET
from saveos.cli.errors import CommandError
from saveos.cli.installation import Installation
from saveos.cli.preflight import local_url
from saveos.cli.running import check_home, checked_settings

LOW_MEGABYTES = 1000
ROOT_ONLY = "only root can look at this: run it as root"


@dataclass(frozen=True)
class Finding:
    """What was looked at, whether it is well, and a sentence that says what to do when it is not."""

    subject: str
    ok: bool
    sentence: str


def examine() -> list[Finding]:
    """Return a finding for each thing looked at, in the order in which to fix them."""
    here = installation.current()
    checks: tuple[Callable[[Installation], Iterator[Finding]], ...] = (
        _settings,
        _programs,
        _fleet,
        _home,
        _database,
        _tls,
        _recovery,
        _controller,
        _ssh,
        _deleted,
    )
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(here)
        except PermissionError:
            found.append(Finding(check.__name__.strip("_"), False, ROOT_ONLY))
        except CommandError as error:
            found.append(Finding(check.__name__.strip("_"), False, str(error)))
            if check is _settings:
                return found
    return found


def _settings(here: Installation) -> Iterator[Finding]:
    settings = checked_settings()
    yield Finding("settings", True, f"home {settings.home}, listens on {settings.listen}")


def _programs(here: Installation) -> Iterator[Finding]:
    version = platform.python_version()
    yield Finding("python", sys.version_info >= (3, 11), f"Python {version}; 3.11 or newer is needed")
    for program, package in (("ssh", "openssh-client"), ("ssh-keyscan", "openssh-client")):
        path = shutil.which(program)
        yield Finding(program, path is not None, path or f"missing: apt-get install {package}")
    beside = Path(sys.executable).with_name("ansible-playbook")
    good = beside.exists() or shutil.which("ansible-playbook") is not None
    yield Finding("ansible", good, "ansible-playbook is there" if good else "missing: sh scripts/setup.sh venv")


def _fleet(here: Installation) -> Iterator[Finding]:
    missing = [
        name for name in ("ansible.cfg", "playbooks/site.yml", "roles/agent") if not (FLEET / name).exists()
    ]
    sentence = (
        f"{', '.join(missing)} missing in {FLEET}: check the checkout out again" if missing else f"in {FLEET}"
    )
    yield Finding("playbooks", not missing, sentence)
    script = FLEET / "scripts/bundle.py"
    if not os.environ.get("SAVEOS_BUNDLE") and script.exists():
        current = not subprocess.run([str(script), "--check"], check=False, capture_output=True).returncode
        sentence = (
            "built and current"
            if current
            else "missing or old; the next provisioning builds it, or: scripts/bundle.py"
        )
        yield Finding("agent bundle", current, sentence)


def _home(here: Installation) -> Iterator[Finding]:
    if not here.home.exists():
        yield Finding("home", False, f"{here.home} does not exist: run `make up`")
        return
    check_home(here.home)
    kek = here.home / "kek"
    if not kek.exists() and not os.environ.get("CREDENTIALS_DIRECTORY"):
        yield Finding("key", False, f"{kek} is missing: put it back from its copy, or no secret can be opened")
    elif kek.exists():
        private = not kek.stat().st_mode & 0o077
        yield Finding(
            "key", private, "readable by root only" if private else f"others can read it: chmod 0400 {kek}"
        )
    free = shutil.disk_usage(here.home).free // 1_000_000
    sentence = f"{free} MB are free" + ("" if free >= LOW_MEGABYTES else f" at {here.home}: free some")
    yield Finding("disk", free >= LOW_MEGABYTES, sentence)


def _database(here: Installation) -> Iterator[Finding]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    settings = checked_settings()
    if not settings.database_url and not (here.home / "saveos.db").exists():
        yield Finding("database", False, "there is none yet: run `make up` or `saveos migrate`")
        return
    engine = create_engine(settings.sqlalchemy_url)
    try:
        with engine.connect() as connection:
            revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        yield Finding("database", True, f"answers, at {revision}")
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        yield Finding("database", False, f"{reason}: check SAVEOS_DATABASE_URL, then run `saveos migrate`")
    finally:
        engine.dispose()


def _tls(here: Installation) -> Iterator[Finding]:
    from datetime import UTC, datetime

    from saveos.core import tls

    if not checked_settings().serves_tls:
        return
    try:
        found = tls.current(here.home)
    except tls.BrokenIdentity as error:
        yield Finding("certificate", False, str(error))
        return
    if found is None:
        yield Finding("certificate", False, "there is none yet: the controller makes it when it starts")
        return
    good = found.not_after > datetime.now(UTC)
    sentence = f"ends {found.not_after:%Y-%m-%d}, renewed by itself; CA pin {found.ca_pin}"
    yield Finding("certificate", good, sentence if good else "has ended: saveos tls renew, then restart")


def _recovery(here: Installation) -> Iterator[Finding]:
    """Say whether hosts can seal, and whether the controller itself can open what they seal."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    settings = checked_settings()
    if not settings.database_url and not (here.home / "saveos.db").exists():
        return
    engine = create_engine(settings.sqlalchemy_url)
    try:
        with engine.connect() as connection:
            query = text("SELECT mode, fingerprint FROM recovery_keys WHERE retired_at IS NULL")
            keys = connection.execute(query).all()
    except SQLAlchemyError:  # the finding about the database says why
        return
    finally:
        engine.dispose()
    for mode, fingerprint in keys:
        who = "MANAGED: this controller can open every escrow" if mode == "managed" else "offline"
        yield Finding("recovery key", True, f"{fingerprint[:16]}, {who}")
    if not keys:
        yield Finding("recovery key", True, "none, so hosts seal nothing: saveos recovery init --output FILE")


def _controller(here: Installation) -> Iterator[Finding]:
    settings = checked_settings()
    url = local_url(settings.address, tls=settings.serves_tls)
    if process.healthy(url):
        yield Finding("controller", True, f"answers at {url}")
    elif process.running(here):
        yield Finding("controller", False, f"runs but does not answer at {url}: see {_log(here)}")
    else:
        yield Finding("controller", False, f"does not run: `make up` starts it; its log is {_log(here)}")


def _log(here: Installation) -> str:
    return f"journalctl -u {here.unit}" if installation.is_systemd() else str(here.log)


def _ssh(here: Installation) -> Iterator[Finding]:
    path = local_ssh.authorized_keys()
    try:
        known = path.exists() and here.key_mark in path.read_text()
    except PermissionError:
        yield Finding("ssh", False, ROOT_ONLY)
        return
    if known:  # this machine is a host of its own controller
        answers = local_ssh.answers(local_ssh.port())
        yield Finding("ssh", answers, "sshd answers" if answers else "sshd does not answer: service ssh start")


def _deleted(here: Installation) -> Iterator[Finding]:
    for old in leftovers.deleted():
        if old.home != here.home:
            yield Finding(
                "leftovers", False, f"{old.home} was deleted without `make purge`: `make up` cleans up after it"
            )
