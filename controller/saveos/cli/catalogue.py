"""Commands about files in archives: list, show, versions, compare, find."""

import os
import stat
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.archives import Archive, Host, archives, browse_on_host, named, restore
from saveos.cli.care import compare_with_host
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, Wait, examples
from saveos.cli.errors import USAGE, CommandError

PathOf = Annotated[str, typer.Argument(help="Path in the archive.", metavar="PATH")]
FILE = {
    "mode": lambda f: stat.filemode(f["mode"]),
    "size": lambda f: None if f["is_directory"] and f["files"] is None else output.size(f["size"]),
    "files": "files",
    "modified": lambda f: (
        output.when(f["modified_at"]) if f["mode"] & 0o7777 or not f["is_directory"] else None
    ),
}  # a directory above a source has neither mode nor time: Borg stores nothing of it


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.command(
        "find",
        epilog=examples(
            "saveos find report.odt",
            "saveos find '*.conf' --host web1 --after 2026-10-01",
            "saveos find '/srv/*.iso' --group mail --min-size 500M --max-size 4G",
            "saveos find /etc/nginx/nginx.conf --restore --wait       bring back what was found, if it is one",
        ),
    )(find)


@archives.command("browse", epilog=examples("saveos archives browse 0199a7c4-… /etc/ssh"))
def browse_archive(
    archive: Archive,
    path: Annotated[str, typer.Argument(help="Directory in the archive.")] = "/",
    limit: Limit = 200,
    everything: All = False,
    on_host: Annotated[
        bool, typer.Option("--on-host", help="Ask the repository through the host, not the catalogue.")
    ] = False,
) -> None:
    """List one directory of an archive: from the catalogue, where it is in there, else on the host."""
    client = Client()
    found = client.get(f"/archives/{segment(archive)}")
    if on_host or found["catalogue"] != "indexed":
        browse_on_host(found, path)
        return
    count = None if everything else limit
    rows = client.page(f"/archives/{segment(archive)}/files", count, **named(path))
    columns = FILE | {"": lambda f: f["changed"] or " ", "name": lambda f: f["name"] + "/" * f["is_directory"]}
    output.page(rows, columns, "Nothing there.")


@archives.command("versions", epilog=examples("saveos archives versions 0199a7c4-… /etc/hosts"))
def list_versions(archive: Archive, path: PathOf) -> None:
    """List the versions of one path in the archive's repository, and which archive holds each."""
    found = Client().get(f"/archives/{segment(archive)}/versions", **named(path))
    columns = FILE | {
        "since": lambda v: output.when(v["first_at"]),
        "until": lambda v: output.when(v["last_at"]) if v["last_at"] else "now",
        "archive": "archive_id",
    }
    output.page({"items": found}, columns, "The catalogue knows no such path: it may be older, or off.")


@archives.command(
    "compare",
    epilog=examples("saveos archives compare OLD NEW --path /etc", "saveos archives compare OLD host"),
)
def compare_archives(
    archive: Archive,
    other: Annotated[
        str, typer.Argument(help="The other archive's id, or host: as its host is now.", metavar="OTHER")
    ],
    path: Annotated[str, typer.Option("--path", help="Only below this directory.")] = "/",
    limit: Limit = 200,
    everything: All = False,
) -> None:
    """List what differs from one archive to another, or to its host as it is now."""
    if other == "host":
        compare_with_host(archive, path)
        return
    url = f"/archives/{segment(archive)}/compare/{segment(other)}"
    rows = Client().page(url, None if everything else limit, **named(path))
    columns = {"": "kind", **FILE, "before": _before, "path": "path"}
    del columns["files"]
    output.page(rows, columns, "Nothing differs.")


@archives.command(
    "diff",
    epilog=examples("saveos archives diff OLD NEW /etc/hosts", "saveos archives diff OLD host /etc/hosts"),
)
def diff_file(
    archive: Archive,
    other: Annotated[str, typer.Argument(help="The other archive's id, or host.", metavar="OTHER")],
    path: Annotated[str, typer.Argument(help="The file.", metavar="PATH")],
) -> None:
    """Show how the text of one small file differs. It passes the controller's memory only; needs `download`."""
    client = Client()
    body = named(path) | ({} if other == "host" else {"other": other})
    made = client.post(f"/archives/{segment(archive)}/diff", body, once=True)
    _print_text(client, made, "difference")


@archives.command("show-file", epilog=examples("saveos archives show-file 0199a7c4-… /etc/hosts"))
def show_file(archive: Archive, path: PathOf) -> None:
    """Show the text of one small file. It passes the controller's memory only; needs `download`."""
    client = Client()
    made = client.post(f"/archives/{segment(archive)}/text", named(path), once=True)
    _print_text(client, made, "text")


def _print_text(client: Client, made: dict[str, Any], name: str) -> None:
    """Print what a host sends of a file, or emit it as `name`."""
    with client.content(f"/restores/{segment(made['restore']['id'])}/content") as (_, pieces):
        text = b"".join(pieces).decode(errors="replace")
    if output.is_json():
        output.emit({name: text})
    else:
        print("\n".join(output.clean(line) for line in text.splitlines()))


def find(
    text: Annotated[str, typer.Argument(help="A part of a name, a path, or a glob such as '*.conf'.")],
    host: Host = "",
    group: Annotated[str, typer.Option(help="Only hosts of this group.")] = "",
    after: Annotated[str, typer.Option(help="Modified after this ISO time.")] = "",
    before: Annotated[str, typer.Option(help="Modified before this ISO time.")] = "",
    min_size: Annotated[str, typer.Option(help="At least so large: bytes, or as 500k, 10M, 2G.")] = "",
    max_size: Annotated[str, typer.Option(help="At most so large.")] = "",
    limit: Limit = 50,
    bring_back: Annotated[
        bool, typer.Option("--restore", help="Restore the one path that is found, to a staging directory.")
    ] = False,
    wait: Wait = False,
) -> None:
    """Find files in all archives, also those that are gone from their host.

    Names that are just the text come first, then what was changed last.
    """
    text = os.fsencode(text).decode(errors="replace")
    if not text.strip():
        raise CommandError("Say what to look for: a part of a name, a path, or a glob such as '*.conf'.", USAGE)
    asked: dict[str, Any] = {"q": text, "host": host, "group": group, "after": after, "before": before}
    asked |= {"min_size": _bytes(min_size), "max_size": _bytes(max_size), "limit": limit}
    found = Client().get("/find", **asked)
    if bring_back:
        fitting = [hit for hit in found if text in (hit["path"], hit["name"])] or found
        if len(fitting) != 1:
            raise CommandError(
                f"{len(fitting)} paths fit, and --restore wants one: add --host, the whole path, or a time."
            )
        hit = fitting[0]
        restore(hit["host"], hit["archive_id"], {"refs": [hit["ref"]]}, "", "", wait)
        return
    columns = {
        "host": "host",
        **FILE,
        "state": lambda f: "gone" if f["gone"] else "older version" if f["older"] else "there",
        "archive": "archive_id",
        "path": "path",
    }
    nothing = "Nothing fits. The catalogue knows archives that are indexed, of hosts whose policy has it on."
    output.page({"items": found}, columns, nothing)
    if len(found) == limit and not output.is_json():
        print("… there may be more: say more of the name, a folder or a host, or --limit N")


def _bytes(text: str) -> int | None:
    if not text:
        return None
    from saveos.core.inputs import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise CommandError(f"{error}.", USAGE) from error


def _before(difference: dict[str, Any]) -> str | None:
    size = difference["old_size"]
    plain = difference["kind"] == "changed" and not difference["is_directory"]
    return output.size(size) if plain else None


@archives.command("rebuild", epilog=examples("saveos archives rebuild 0199a7c4-…"))
def rebuild(
    repository: Annotated[str, typer.Argument(help="The repository's id.", metavar="REPOSITORY")],
) -> None:
    """Drop a repository's part of the catalogue; its host sends the files of all its archives again."""
    Client().post(f"/repositories/{segment(repository)}/catalogue/rebuild", {})
    if not output.is_json():
        print("Dropped. The host sends it anew after its next backup, or now with: saveos-agent catalogue")
