"""Commands that run operations on hosts."""

from typing import Annotated, Any

import typer

from saveos.cli import cleanup, dependencies, drift, guard, monitor, output, secrets, validation
from saveos.cli import findings as found
from saveos.cli.archives import (
    Conflict,
    Destination,
    Excludes,
    FromArchive,
    InPlace,
    NoAcls,
    NoOwners,
    NoXattrs,
    Paths,
    Preview,
    TargetHost,
    Unverified,
    restore,
    selection,
    show_archives,
)
from saveos.cli.client import Client
from saveos.cli.common import (
    All,
    Check,
    Everything,
    Groups,
    Hosts,
    Limit,
    Wait,
    examples,
    group,
    playbook,
    targets,
)
from saveos.cli.errors import FAILED, FINDINGS
from saveos.cli.jobs import accepted, follow, summary

maintenance = group(
    "Run operations on hosts: provision, backup, restore, cleanup, dependencies, validation, secrets, health, "
    "drift.\n\nOperations that look for faults leave findings, which `saveos maintenance findings` lists: with "
    "--wait they end with 3 while a warning or worse is open."
)
backup = group("Back hosts up now, and bring files back.")
health = group("Is each host well?")
maintenance.add_typer(backup, name="backup")
maintenance.add_typer(health, name="health")
found.add_to(maintenance)
guard.add_operations(maintenance)
dependencies.add_to(maintenance)
cleanup.add_to(maintenance)
validation.add_to(maintenance)
secrets.add_to(maintenance)
drift.add_to(maintenance)
OneHost = Annotated[str, typer.Argument(help="Host, by name or id.", metavar="HOST")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(maintenance, name="maintenance")


@maintenance.command(
    "provision",
    epilog=examples(
        "saveos maintenance provision web1 --wait", "saveos maintenance provision --all --check --wait"
    ),
)
def provision(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    check: Check = False,
    wait: Wait = False,
) -> None:
    """Make hosts what their policy and roles say; a second run changes nothing."""
    asked = targets(hosts, groups, everything)
    client = Client(instead=playbook("site", asked, check))
    accepted(client, _run(client, "provision", asked, "check" if check else "run"), wait)


@backup.command(
    "create",
    epilog=examples("saveos maintenance backup create web1 --wait", "saveos maintenance backup create --all"),
)
def create_backup(
    hosts: Hosts = None, groups: Groups = None, everything: Everything = False, wait: Wait = False
) -> None:
    """Back hosts up now: the same run as their timer's."""
    asked = targets(hosts, groups, everything)
    client = Client(instead=playbook("backup", asked))
    accepted(client, _run(client, "backup", asked), wait)


@backup.command("list", epilog=examples("saveos maintenance backup list web1"))
def list_backups(
    host: Annotated[str, typer.Argument(help="Host, by name or id.")] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List the archives of a host, or of all."""
    show_archives(None if everything else limit, host=host)


@backup.command("restore", epilog=examples("saveos maintenance backup restore web1 --path /etc/nginx --wait"))
@maintenance.command("restore", epilog=examples("saveos maintenance restore web1 --path /etc/nginx --wait"))
def restore_host(
    host: OneHost,
    archive: FromArchive = "latest",
    paths: Paths = None,
    excludes: Excludes = None,
    destination: Destination = "",
    in_place: InPlace = False,
    conflict: Conflict = "refuse",
    preview: Preview = False,
    no_verify: Unverified = False,
    no_owners: NoOwners = False,
    no_acls: NoAcls = False,
    no_xattrs: NoXattrs = False,
    target_host: TargetHost = "",
    wait: Wait = False,
) -> None:
    """Restore an archive, or some of its paths, to a directory of the host, or in place."""
    left = {"verify": no_verify, "owners": no_owners, "acls": no_acls, "xattrs": no_xattrs}
    asked = selection(paths, excludes, in_place, conflict, left)
    restore(host, archive, asked, destination, target_host, wait, preview=preview)


@health.command("check", epilog=examples("saveos maintenance health check --all"))
def check_health(hosts: Hosts = None, groups: Groups = None, everything: Everything = False) -> None:
    """Ask hosts how they are. Ends with 3 when something needs a person."""
    asked = targets(hosts, groups, everything)
    client = Client(instead=playbook("health", asked))
    job = follow(client, _run(client, "health", asked)["id"])
    items = client.page(f"/jobs/{job['id']}/hosts", None)["items"]
    found = [(item, finding) for item in items for finding in findings(item)]
    if output.is_json():
        output.emit(job | {"hosts": items})
    else:
        print(summary(client, job))
        for item, finding in found:
            print(f"  {item['name']}: {output.clean(finding)}")
    raise typer.Exit(FAILED if job["state"] != "succeeded" else FINDINGS if found else 0)


monitor.add_to(health, lambda: check_health(everything=True))


def findings(item: dict[str, Any]) -> list[str]:
    """Return the sentences in a host's health result that need a person."""
    reported = ((item.get("result") or {}).get("health") or {}).get("findings") or []
    return [str(f.get("message") or f) if isinstance(f, dict) else str(f) for f in reported]


def _run(client: Client, operation: str, asked: dict[str, Any], mode: str = "run") -> dict[str, Any]:
    body = {"targets": asked, "mode": mode, "parameters": {}}
    job: dict[str, Any] = client.post(f"/maintenance/{operation}", body, once=True)
    return job
