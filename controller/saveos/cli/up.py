"""`saveos up`: this machine as controller, storage server and agent, with a first backup that is proven.

What must be there before the first SSH connection is done locally; all else goes over HTTP and SSH,
as for any other host. Every step looks first, so a second run changes nothing.
"""

import os
import re
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from saveos import __version__
from saveos.accounts.models import Tenant, Token, User
from saveos.accounts.service import FIRST_LOGIN_FILE, bootstrap, create_token
from saveos.cli import installation, leftovers, local_ssh, output, preflight, process, proof
from saveos.cli.client import Client, Login, stored_login, write_login
from saveos.cli.errors import CommandError
from saveos.cli.installation import Installation
from saveos.cli.jobs import follow, require_success
from saveos.cli.progress import FAULTS
from saveos.cli.running import checked_settings
from saveos.core import security
from saveos.core.database import write_lock
from saveos.core.settings import Settings
from saveos.upkeep.daily import spool
from saveos.upkeep.export import ExportError, export
from saveos.upkeep.opening import open_database


def run(sources: list[Path], *, managed_recovery: bool = False) -> None:
    """Set everything up and print what a newcomer needs. Raises CommandError with what stopped it.

    With `managed_recovery` a recovery key is made that the controller keeps, where there is none.
    """
    here = preflight.check(sources)
    _clean_up_deleted()
    settings = checked_settings()
    url = preflight.local_url(settings.address, tls=settings.serves_tls)
    _make_home(here)
    public_key, password = _open_installation(here, url)
    started = process.start(here, url)
    output.say(f"The controller {'runs' if started else 'is running'} at {url}.")
    port, host_keys = local_ssh.prepare(public_key, here.key_mark)
    client = Client(_stored_login(here))
    recovery = _recovery(client, managed_recovery)
    name, known = _this_host(client)
    policy = _set_policy(client, here, known, sources)
    ssh = {"address": local_ssh.ADDRESS, "port": port, "user": "root", "ssh_host_keys": host_keys}
    host = _set_host(client, here, name, known, ssh)
    _export(settings)
    output.say(f"Provisioning {host['name']} (this machine) as storage server and agent")
    _run_job(client, "provision", host, FAULTS | {"recap"})
    archive = _backup(client, host, policy)
    proven = proof.prove(client, here, host, policy, archive)
    _report(here, url, password, archive, proven, recovery)


def _export(settings: Settings) -> None:
    """Spool the controller's own backup, so that this machine's first archive holds it."""
    try:
        export(settings, spool(settings))
    except (ExportError, OSError) as error:
        output.say(f"The controller's own backup is missing from this archive: {error}.")


def _clean_up_deleted() -> None:
    for old in leftovers.deleted():
        removed = leftovers.remove(old)
        if removed:
            words = ", ".join(removed)
            output.say(
                f"An earlier installation in {old.home} was deleted without `make purge`; removed its {words}."
            )


def _make_home(here: Installation) -> None:
    here.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The storage server's user must pass through to the repositories below it; nobody may look around.
    here.home.chmod(0o711 if here.instance else 0o700)
    here.write_environment()
    if not here.marker.exists():
        installation.write_private(here.marker, f'{{"version": "{__version__}"}}\n')


def _open_installation(here: Installation, url: str) -> tuple[str, str | None]:
    """Migrate, make the admin and the command's token where they are missing.

    Returns the tenant's public SSH key and the admin's one-time password while it is unchanged.
    """
    inherited = os.umask(0o077)  # not for long: a service that we start would inherit it
    try:
        database = open_database(checked_settings())
    except ValueError as error:
        raise CommandError(f"{error}.") from error
    finally:
        os.umask(inherited)
    try:
        with database.session() as session:
            write_lock(session)
            owner = bootstrap(session)
            tenant, admin = session.get_one(Tenant, owner.tenant_id), session.get_one(User, owner.user_id)
            if not _has_valid_login(here, url, session):
                label = f"saveos command on {socket.gethostname()}"
                _, secret = create_token(session, tenant.id, admin, label[:100], ["*"])
                write_login(here.home / "cli.json", url, secret)
            password_file = here.home / FIRST_LOGIN_FILE
            if not admin.must_change_password:
                password_file.unlink(missing_ok=True)
            password = password_file.read_text().strip() if password_file.exists() else None
            return tenant.ssh_public_key, password
    finally:
        database.close()


def _has_valid_login(here: Installation, url: str, session: Session) -> bool:
    try:
        login = _stored_login(here)
    except CommandError:  # a damaged file is written anew
        return False
    if login is None or login.url != url:
        return False
    hashed = security.token_hash(login.token)
    return session.scalar(select(Token.id).where(Token.hash == hashed)) is not None


def _stored_login(here: Installation) -> Login | None:
    return stored_login([here.home / "cli.json"])


def _set_policy(
    client: Client, here: Installation, known: dict[str, Any] | None, sources: list[Path]
) -> dict[str, Any]:
    """Return this machine's policy, else the default one, changed to back up what was named."""
    policies = client.page("/policies", None)["items"]
    mine = [each for each in policies if known and each["id"] == known["policy_id"]]
    found: dict[str, Any] = (mine or [each for each in policies if each["is_default"]])[0]
    wanted = [str(source) for source in sources] or found["sources"]
    excludes = found["excludes"] + [
        own for own in _own_directories(here, wanted) if own not in found["excludes"]
    ]
    if (wanted, excludes) == (found["sources"], found["excludes"]):
        return found
    changed: dict[str, Any] = client.patch(
        f"/policies/{found['id']}", {"sources": wanted, "excludes": excludes}
    )
    return changed


def _recovery(client: Client, managed: bool) -> str:
    """Return a sentence about the recovery key; make a managed one where it is wanted and there is none."""
    key = client.get("/recovery")["key"]
    if key is None and managed:
        from saveos.core import sealing

        public, private = sealing.new_pair()
        key = client.post("/recovery", {"public_key": public, "mode": "managed", "private_key": private})
    if key is None:
        return "none yet: saveos recovery init --output FILE, and keep FILE away from this machine"
    kept = "the controller keeps its private half, too" if key["mode"] == "managed" else "offline"
    return f"key {key['fingerprint'][:16]}, {kept}"


def _own_directories(here: Installation, sources: list[str]) -> list[str]:
    """Return our own directories below the sources: a repository must not be backed up into itself."""
    agent = here.home / "agent" if here.instance else Path("/var/lib/saveos-agent")
    return [str(own) for own in (here.storage, agent) if any(own.is_relative_to(source) for source in sources)]


def _this_host(client: Client) -> tuple[str, dict[str, Any] | None]:
    """Return this machine's name, and the host of that name that the controller has."""
    name = re.sub(r"[^a-z0-9._-]+", "-", socket.gethostname().lower()).strip("._-") or "localhost"
    return name, next(
        (each for each in client.page("/hosts", None, q=name)["items"] if each["name"] == name), None
    )


def _set_host(
    client: Client, here: Installation, name: str, known: dict[str, Any] | None, ssh: dict[str, Any]
) -> dict[str, Any]:
    """Make this machine a host, or bring its SSH port and keys up to date; return it."""
    if known is None:
        roles = {"is_agent": True, "is_storage_server": True, "variables": here.host_variables}
        made: dict[str, Any] = client.post("/hosts", {"name": name} | ssh | roles)
        return made
    variables = here.host_variables | known["variables"]
    if variables == known["variables"] and all(known[key] == value for key, value in ssh.items()):
        return known
    changed: dict[str, Any] = client.patch(f"/hosts/{known['id']}", ssh | {"variables": variables})
    return changed


def _run_job(client: Client, operation: str, host: dict[str, Any], kinds: frozenset[str]) -> dict[str, Any]:
    """Run an operation on this machine, show how it goes, return the job. Raises CommandError when it fails."""
    asked = {"targets": {"hosts": [host["id"]]}, "mode": "run", "parameters": {}}
    job = client.post(f"/maintenance/{operation}", asked, once=True)
    return require_success(client, follow(client, job["id"], kinds))


def _backup(client: Client, host: dict[str, Any], policy: dict[str, Any]) -> dict[str, Any]:
    """Return the newest archive that the policy as it is now has made; make it when there is none."""
    newest = _newest_archive(client, host)
    if newest and datetime.fromisoformat(newest["started_at"]) >= datetime.fromisoformat(policy["updated_at"]):
        output.say(f"There is an archive of this policy already, of {output.when(newest['started_at'])}.")
        return newest
    output.say(f"Backing up {' '.join(policy['sources'])}")
    _run_job(client, "backup", host, FAULTS)
    made = _newest_archive(client, host)
    if made is None or (newest and made["id"] == newest["id"]):
        raise CommandError(
            f"The backup of {host['name']} succeeded but reported no archive: see `saveos jobs list`."
        )
    return made


def _newest_archive(client: Client, host: dict[str, Any]) -> dict[str, Any] | None:
    items = client.page("/archives", 1, host=host["id"])["items"]
    return items[0] if items else None


def _report(
    here: Installation, url: str, password: str | None, archive: dict[str, Any], proven: int, recovery: str
) -> None:
    facts = {
        "url": url,
        "user": "admin",
        "one_time_password": password,
        "token_file": str(here.home / "cli.json"),
        "archive": archive,
        "files_proven": proven,
        "recovery": recovery,
    }
    if output.is_json():
        output.emit(facts)
        return
    prefix = f"SAVEOS_HOME={here.home} " if here.instance else ""
    command = Path(process.program())
    shown = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
    print()
    print(f"Dashboard  {url}")
    print(f"Log in as  admin, {f'one-time password {password}' if password else 'with the password you chose'}")
    print(f"Archive    {archive['name']}: {archive['files']} files, {output.size(archive['original_size'])}")
    print(f"Recovery   {recovery}")
    print(f"Token      {facts['token_file']} (the command saveos reads it)")
    print(f"Try next   {prefix}{shown} archives list")
