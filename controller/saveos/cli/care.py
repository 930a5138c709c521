"""Commands that take care of archives, compare them with a host, and bring databases back."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.archives import Archive, FromArchive, archives, follow_quietly, restores
from saveos.cli.client import Client, segment
from saveos.cli.common import Wait, confirm, examples
from saveos.cli.errors import CommandError
from saveos.cli.jobs import accepted, finish

Check = Annotated[
    bool, typer.Option("--check", "--dry-run", help="Change nothing, and say what would be done.")
]


@archives.command("protect", epilog=examples("saveos archives protect 0199a7c4-… --wait"))
def protect(archive: Archive, wait: Wait = False) -> None:
    """Protect an archive: retention never prunes it, and it cannot be deleted."""
    _care(archive, {"action": "protect"}, wait)


@archives.command("unprotect", epilog=examples("saveos archives unprotect 0199a7c4-… --wait"))
def unprotect(archive: Archive, wait: Wait = False) -> None:
    """Take an archive's protection away: retention looks at it again."""
    _care(archive, {"action": "unprotect"}, wait)


@archives.command("rename", epilog=examples("saveos archives rename 0199a7c4-… release-1.0 --wait"))
def rename(
    archive: Archive,
    name: Annotated[str, typer.Argument(help="Letters, digits and . : @ = , _ - only.", metavar="NAME")],
    wait: Wait = False,
) -> None:
    """Give an archive another name; retention treats it as before."""
    _care(archive, {"action": "rename", "new_name": name}, wait)


@archives.command(
    "delete",
    epilog=examples(
        "saveos archives delete 0199a7c4-… --check", "saveos archives delete 0199a7c4-… --yes --wait"
    ),
)
def delete(
    archive: Archive,
    check: Check = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Wait = False,
) -> None:
    """Mark an archive as deleted. The space, and with it the way back, stays until the server's gate opens."""
    found = Client().get(f"/archives/{segment(archive)}")
    if not (check or yes or confirm(f"Delete {output.clean(found['name'])} of {output.clean(found['host'])}?")):
        raise CommandError("Nothing was deleted.", 1)
    _care(archive, {"action": "delete", "check": check}, wait)


@archives.command("export", epilog=examples("saveos archives export 0199a7c4-… /srv/web1.tar.zst --wait"))
def export(
    archive: Archive,
    file: Annotated[str, typer.Argument(help="File on the host: .tar, .tar.gz or .tar.zst.", metavar="FILE")],
    check: Check = False,
    wait: Wait = False,
) -> None:
    """Write an archive as a tar file on its host, readable by root only; never over a file that is there."""
    _care(archive, {"action": "export", "destination": file, "check": check}, wait)


def _care(archive: str, asked: dict[str, Any], wait: bool) -> None:
    client = Client()
    job = client.post(f"/archives/{segment(archive)}/care", asked, once=True)
    if not asked.get("check"):
        accepted(client, job, wait)
        return
    told = _result(client, job, "care")
    if output.is_json():
        output.emit(told)
    elif asked["action"] == "delete":
        size = output.size(told.get("frees"))
        print(f"{output.clean(told['archive']['name'])} would be deleted; {size} are held by it alone.")
    else:
        print(
            f"It would be written to {output.clean(told['file'])}, where {output.size(told['free'])} are free."
        )


def compare_with_host(archive: str, path: str) -> None:
    """Print what was added, removed and modified on an archive's host since."""
    client = Client()
    found = client.get(f"/archives/{segment(archive)}")
    parameters = {"archive": found["borg_id"], "repository_id": found["repository_id"], "path": path}
    body = {"targets": {"hosts": [found["host"]]}, "parameters": parameters}
    told = _result(client, client.post("/maintenance/compare", body, once=True), "compare")
    if output.is_json():
        output.emit(told)
        return
    columns: dict[str, Any] = {"": "kind", "what": "what", "path": "path"}
    columns |= {"archived": lambda d: output.size(d["size"]), "now": lambda d: output.size(d["now"])}
    output.page({"items": told["differences"]}, columns, "Nothing differs.")
    kinds = ("added", "removed", "modified")
    print(", ".join(f"{told[kind]['files']} {kind}" for kind in kinds) + f", of {told['compared']} paths")


@restores.command(
    "database",
    epilog=examples(
        "saveos restores database web1 shop --wait                          as a copy beside the present one",
        "saveos restores database web1 shop --copy-name shop_old --archive 0199a7c4-… --wait",
        "saveos restores database web1 /srv/app/notes.db --replace --check  what would be done",
    ),
)
def restore_database(
    host: Annotated[str, typer.Argument(help="Host, by name or id.", metavar="HOST")],
    name: Annotated[str, typer.Argument(help="Database; of SQLite its name in the policy.", metavar="NAME")],
    archive: FromArchive = "latest",
    kind: Annotated[str, typer.Option(help="postgresql, mariadb, mysql or sqlite, where several fit.")] = "",
    copy_name: Annotated[str, typer.Option(help="Name of the copy; of SQLite a new file's path.")] = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the present one; it is dumped into a file before.")
    ] = False,
    check: Check = False,
    wait: Wait = False,
) -> None:
    """Bring a database back from its dump in an archive: as a copy, or in place of the present one."""
    client = Client()
    parameters = {"database": name, "database_kind": kind, "copy_name": copy_name, "archive": archive}
    if archive != "latest":
        found = client.get(f"/archives/{segment(archive)}")
        parameters |= {"archive": found["borg_id"], "repository_id": found["repository_id"]}
    parameters["database_as"] = "replace" if replace else "copy"
    body = {"targets": {"hosts": [host]}, "mode": "check" if check else "run", "parameters": parameters}
    job = client.post("/maintenance/database", body, once=True)
    if not check:
        accepted(client, job, wait)
        return
    told = _result(client, job, "database")
    if output.is_json():
        output.emit(told)
    else:
        print(f"{told['kind']} {output.clean(told['name'])} would be loaded into {output.clean(told['into'])}.")


def _result(client: Client, job: dict[str, Any], key: str) -> dict[str, Any]:
    job = follow_quietly(client, job)
    if job["state"] != "succeeded":  # a check that would change something has succeeded, too
        finish(client, job)
    told: dict[str, Any] = client.page(f"/jobs/{job['id']}/hosts", None)["items"][0]["result"][key]
    return told
