"""Commands about archives and restores."""

import base64
import os
import re
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, Wait, examples, group, playbook
from saveos.cli.errors import USAGE, CommandError
from saveos.cli.jobs import accepted, finish, outcome

archives = group("What is in the repositories.")
restores = group("Bring files back.")
CONFLICTS = ("refuse", "skip", "rename", "overwrite", "newer")
SWITCHES = ("verify", "owners", "acls", "xattrs")  # of a restore: on where nobody says otherwise
USUAL: dict[str, Any] = {"archive": "latest", "paths": [], "excludes": [], "destination": "", "in_place": False}
USUAL |= {"conflict": "refuse"} | dict.fromkeys(SWITCHES, True)
Archive = Annotated[str, typer.Argument(help="The archive's id.", metavar="ARCHIVE")]
Host = Annotated[str, typer.Option("--host", help="Host, by name or id.")]
FromArchive = Annotated[str, typer.Option("--archive", help="Archive id, or latest.")]
Paths = Annotated[list[str] | None, typer.Option("--path", "-p", help="Path in the archive; may be repeated.")]
Destination = Annotated[
    str,
    typer.Option("--destination", "-d", help="Empty or new directory on the host (else a staging directory)."),
]
Excludes = Annotated[
    list[str] | None, typer.Option("--exclude", help="Path to leave out; may be repeated.", metavar="PATH")
]
InPlace = Annotated[
    bool, typer.Option("--in-place", help="Put everything back to where it came from (needs --conflict).")
]
Conflict = Annotated[
    str,
    typer.Option("--conflict", help="What happens to what is there: refuse, skip, rename, overwrite or newer."),
]
Preview = Annotated[
    bool, typer.Option("--preview", "--check", "--dry-run", help="Change nothing, and say what would be done.")
]
Unverified = Annotated[bool, typer.Option("--no-verify", help="Do not compare by hash what was restored.")]
TargetHost = Annotated[str, typer.Option("--target-host", help="Restore to another host.")]
NoOwners = Annotated[
    bool, typer.Option("--no-owners", help="Leave owners out: all belongs to root, and is setuid to nobody.")
]
FromOrTo = Annotated[str, typer.Option("--host", help="Only those from or to this host.")]
NoAcls = Annotated[bool, typer.Option("--no-acls", help="Leave ACLs out.")]
NoXattrs = Annotated[
    bool, typer.Option("--no-xattrs", help="Leave extended attributes (and file capabilities) out.")
]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(archives, name="archives")
    app.add_typer(restores, name="restores")


@archives.command("list", epilog=examples("saveos archives list --host web1", "saveos --json archives list"))
def list_archives(
    host: Host = "",
    before: Annotated[str, typer.Option(help="Made before this ISO time.")] = "",
    after: Annotated[str, typer.Option(help="Made after this ISO time.")] = "",
    tag: Annotated[str, typer.Option(help="With this tag.")] = "",
    gone: Annotated[bool, typer.Option("--gone", help="Those too that retention has removed.")] = False,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List archives, the newest first."""
    filters = {"host": host, "before": before, "after": after, "tag": tag, "gone": "true" if gone else ""}
    show_archives(None if everything else limit, **filters)


def show_archives(limit: int | None, **filters: str) -> None:
    """Print archives that match."""
    columns = {
        "id": "id",
        "host": "host",
        "name": "name",
        "made": lambda a: output.when(a["started_at"]),
        "took": lambda a: output.duration(a.get("duration")),
        "files": "files",
        "size": lambda a: output.size(a.get("original_size")),
        "added": lambda a: output.size(a.get("deduplicated_size")),
        "check": "check_state",
        "protected": lambda a: "protected" if a.get("protected") else "",
        "tags": lambda a: ", ".join(a.get("tags") or []),
        "note": "note",
    }
    empty = "No archive yet: saveos maintenance backup create HOST --wait"
    output.page(Client().page("/archives", limit, **filters), columns, empty)


@archives.command(
    "note",
    epilog=examples(
        "saveos archives note 0199a7c4-… 'before the upgrade'", "saveos archives note 0199a7c4-… ''"
    ),
)
def note_archive(
    archive: Archive, text: Annotated[str, typer.Argument(help="The note; empty takes it away.")]
) -> None:
    """Put a note on an archive."""
    changed(Client().patch(f"/archives/{segment(archive)}", {"note": text}))


@archives.command(
    "tag", epilog=examples("saveos archives tag 0199a7c4-… release", "saveos archives tag 0199a7c4-… --none")
)
def tag_archive(
    archive: Archive,
    tags: Annotated[list[str] | None, typer.Argument(help="All its tags.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Take all tags away.")] = False,
) -> None:
    """Set the tags of an archive; `saveos archives list --tag TAG` finds them."""
    if bool(tags) == none:
        raise CommandError("Name tags, or --none to take all away.", 2)
    changed(Client().patch(f"/archives/{segment(archive)}", {"tags": tags or []}))


def changed(archive: dict[str, Any]) -> None:
    """Say how an archive is kept now."""
    if output.is_json():
        output.emit(archive)
        return
    tags = ", ".join(archive["tags"]) or "no tags"
    print(f"{output.clean(archive['name'])}: {tags}; {output.clean(archive['note']) or 'no note'}")


@archives.command("show", epilog=examples("saveos archives show 0199a7c4-…"))
def show_archive(archive: Archive) -> None:
    """Show one archive."""
    fields = {
        "name": "name",
        "id": "id",
        "host": "host",
        "made": lambda a: output.when(a["started_at"]),
        "took": lambda a: output.duration(a.get("duration")),
        "files": "files",
        "size": lambda a: output.size(a.get("original_size")),
        "compressed": lambda a: output.size(a.get("compressed_size")),
        "added": lambda a: output.size(a.get("deduplicated_size")),
        "check": "check_state",
        "catalogue": "catalogue",
        "tags": lambda a: ", ".join(a.get("tags") or []),
        "note": "note",
        "protected": lambda a: "yes" if a.get("protected") else "no",
        "gone": lambda a: output.when(a["gone_at"]) if a.get("gone_at") else "",
        "deleted by": "removed_by",
        "borg id": "borg_id",
    }
    output.fields(Client().get(f"/archives/{segment(archive)}"), fields)


def browse_on_host(found: dict[str, Any], path: str) -> None:
    """Print one directory of an archive as its host reads it from the repository."""
    asked = {"maintenance_archive": found["name"], "maintenance_path": path}
    client = Client(instead=playbook("browse", {"hosts": [found["host"]]}, **asked))
    listing = browse(client, found["host"], found["name"], path)
    if output.is_json():
        output.emit(listing)
        return
    columns = {
        "mode": "mode",
        "owner": lambda e: f"{e.get('user') or '-'}:{e.get('group') or '-'}",
        "size": lambda e: output.size(e.get("size")),
        "name": lambda e: e.get("name") or e.get("path"),
    }
    output.page({"items": listing.get("entries", [])}, columns, "Nothing there.")
    if listing.get("truncated"):
        print("… the directory has more entries than are shown.")


def browse(client: Client, host: str, archive: str, path: str) -> dict[str, Any]:
    """Run the operation `browse` and return the host's listing of one directory."""
    asked = {"targets": {"hosts": [host]}, "mode": "run", "parameters": {"archive": archive, "path": path}}
    job = follow_quietly(client, client.post("/maintenance/browse", asked, once=True))
    if outcome(client, job):
        finish(client, job)
    listing: dict[str, Any] = client.page(f"/jobs/{job['id']}/hosts", None)["items"][0]["result"]["browse"]
    return listing


def follow_quietly(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Wait for a short job without showing its log."""
    for event, data in client.events(f"/jobs/{job['id']}/events"):
        if event == "state":
            job = data
    return job


@restores.command(
    "create",
    epilog=examples(
        "saveos restores create --host web1 --path /etc/nginx --wait       latest archive, staging directory",
        "saveos restores create --host web1 --archive 0199a7c4-… --destination /srv/back --wait",
        "saveos restores create --host web1 --path /srv/www --in-place --conflict newer --preview",
    ),
)
def create_restore(
    host: Host = "",
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
    """Restore an archive, or some of its paths, to a directory of its host, or in place."""
    left = {"verify": no_verify, "owners": no_owners, "acls": no_acls, "xattrs": no_xattrs}
    asked = selection(paths, excludes, in_place, conflict, left)
    restore(host, archive, asked, destination, target_host, wait, preview=preview)


def selection(
    paths: list[str] | None,
    excludes: list[str] | None,
    in_place: bool,
    conflict: str,
    left_out: dict[str, bool],
) -> dict[str, Any]:
    """Return what the options of a restore say, as it travels. Raises CommandError for no such rule."""
    if conflict not in CONFLICTS:
        raise CommandError(f"--conflict is one of {', '.join(CONFLICTS)}.", USAGE)
    asked: dict[str, Any] = {"paths": _texts(paths), "excludes": _texts(excludes), "conflict": conflict}
    odd = {"refs": _refs(paths), "exclude_refs": _refs(excludes)}
    asked |= {name: refs for name, refs in odd.items() if refs}
    return asked | {"in_place": in_place} | {name: not is_left for name, is_left in left_out.items()}


def named(path: str) -> dict[str, str]:
    """Return how a path travels: as text, or as a reference where a shell gave bytes that are none."""
    refs = _refs([path])
    return {"ref": refs[0]} if refs else {"path": path}


def _texts(paths: list[str] | None) -> list[str]:
    return [path for path in paths or [] if _is_text(path)]


def _refs(paths: list[str] | None) -> list[str]:
    odd = [os.fsencode(path) for path in paths or [] if not _is_text(path)]
    return [base64.urlsafe_b64encode(path).decode().rstrip("=") for path in odd]


def _is_text(path: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in path)


def by_hand(host: str, asked: dict[str, Any], preview: bool) -> str:
    """Return the playbook's line that does the same by hand; "" where the host cannot know the archive."""
    if not host or re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", asked["archive"]):  # a controller's id
        return ""
    told = {f"maintenance_{name}": value for name, value in asked.items() if value != USUAL.get(name)}
    return playbook("restore", {"hosts": [host]}, preview, told)


def restore(
    host: str,
    archive: str,
    asked: dict[str, Any],
    destination: str,
    target_host: str,
    wait: bool,
    *,
    preview: bool = False,
) -> None:
    """Ask for a restore; with `wait` follow it. A preview is always waited for, and shown."""
    if archive == "latest" and not host:
        raise CommandError("Say whose latest archive: --host HOST, or --archive ID.", USAGE)
    instead = (
        "" if target_host else by_hand(host, asked | {"archive": archive, "destination": destination}, preview)
    )
    client = Client(instead=instead)
    body: dict[str, Any] = {"archive": archive, "destination": destination, "preview": preview} | asked
    body |= {"host": host} if host else {}
    body |= {"target_host": target_host} if target_host else {}
    made = client.post("/restores", body, once=True)
    if not preview:
        accepted(client, made["job"], wait)
        return
    job = follow_quietly(client, made["job"])
    if job["state"] != "succeeded":  # a preview that would change something has succeeded, too
        finish(client, job)
    plan = client.page(f"/jobs/{job['id']}/hosts", None)["items"][0]["result"]["plan"]
    if output.is_json():
        output.emit(plan)
        return
    fits = "" if plan["fits"] else ", which does not fit"
    print(f"{plan['files']} files, {output.size(plan['bytes'])}{fits}, to {output.clean(plan['destination'])}")
    counts = ("created", "overwritten", "skipped", "renamed", "blocked")
    print(", ".join(f"{plan[name]} {name}" for name in counts))
    output.page({"items": plan["entries"]}, {"would": "action", "path": "path"}, "Nothing would change.")


@restores.command("show", epilog=examples("saveos restores show 0199a7c4-…"))
def show_restore(restore_id: Annotated[str, typer.Argument(help="The restore's id.", metavar="ID")]) -> None:
    """Show a restore: how it went, whether it is verified, and which files failed."""
    found = Client().get(f"/restores/{segment(restore_id)}")
    told = found.get("outcome") or {}
    if output.is_json():
        output.emit(found)
        return
    fields: dict[str, Any] = {name: name for name in ("host", "archive", "state")}
    fields |= {"to": _where, "conflict": "conflict"}
    fields["left out"] = lambda r: ", ".join(name for name in SWITCHES if not r.get(name, True)) or None
    fields["what"] = _what
    fields |= {name: lambda _, name=name: told.get(name) for name in ("files", "created", "overwritten")}
    fields |= {name: lambda _, name=name: told.get(name) for name in ("skipped", "renamed", "verified")}
    fields["failed"] = lambda _: told.get("failed_total")
    fields["error"] = lambda r: r.get("error") or None
    output.fields(found, fields)
    for item in told.get("failed_files", []):
        print(f"  {output.clean(item['path'])}: {output.clean(item['message'])}")


@restores.command("list", epilog=examples("saveos restores list --host web1"))
def list_restores(host: FromOrTo = "", limit: Limit = 20, everything: All = False) -> None:
    """List restores, the newest first."""
    columns = {
        "id": "id",
        "host": "host",
        "archive": "archive",
        "paths": _what,
        "to": _where,
        "state": lambda r: f"{r['state']} (preview)" if r.get("preview") else r["state"],
        "verified": lambda r: (r.get("outcome") or {}).get("verified"),
        "asked": lambda r: output.when(r["created_at"]),
    }
    query = {"host": host} if host else {}
    found = Client().page("/restores", None if everything else limit, **query)
    output.page(found, columns, "No restore yet.")


def _where(restore: dict[str, Any]) -> str:
    if restore.get("kind") == "download":
        return "download"
    told = (restore.get("outcome") or {}).get("destination") or restore.get("destination")
    place = "in place" if restore.get("in_place") else told or "a staging directory"
    other = restore.get("target_host")
    return f"{other}: {place}" if other else str(place)


def _what(restore: dict[str, Any]) -> str:
    """Say what was chosen: paths, and references of names that are no text."""
    refs = [ref + "=" * (-len(ref) % 4) for ref in restore.get("refs") or []]
    named = [base64.urlsafe_b64decode(ref).decode(errors="replace") for ref in refs]
    return _paths([*(restore.get("paths") or []), *named])


def _paths(paths: list[str]) -> str:
    if len(paths) > 1:
        return f"{paths[0]} and {len(paths) - 1} more"
    return paths[0] if paths else "everything"
