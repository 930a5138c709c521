"""Downloads: paths of an archive to this machine; and the tenant's settings, which allow or refuse them."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.archives import Excludes, FromArchive, Host, Paths, restores
from saveos.cli.client import Client, segment
from saveos.cli.common import examples, group
from saveos.cli.errors import FAILED, USAGE, CommandError

To = Annotated[
    str,
    typer.Option("--to", help="File to write, or - for standard output (else one named by the archive)."),
]
settings = group("What holds for all of the tenant.")


def add_to(app: typer.Typer) -> None:
    """Mount these commands; `restores download` is mounted with the others of restores."""
    app.add_typer(settings, name="settings")


@restores.command(
    "download",
    epilog=examples(
        "saveos restores download --host web1 --path /etc/nginx                a file in this directory",
        "saveos restores download --host web1 --path /etc --to /tmp/etc.tar.zst",
        "saveos restores download --host web1 --path /etc/hosts --to - | tar -xzO",
    ),
)
def download(
    host: Host = "",
    archive: FromArchive = "latest",
    paths: Paths = None,
    excludes: Excludes = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="File to write, or - for standard output (else a file named after the archive)."
        ),
    ] = "",
) -> None:
    """Bring paths of an archive to this machine as a tar archive.

    It comes from the host through the controller's memory, compressed by zstd where the host has it, else by
    gzip; the name says which. Needs the right download, and the setting content_through_controller on.
    """
    if archive == "latest" and not host:
        raise CommandError("Say whose latest archive: --host HOST, or --archive ID.", USAGE)
    if to and to != "-" and Path(to).exists():
        raise CommandError(f"{to} is there already: name another file.", USAGE)
    client = Client()
    body: dict[str, Any] = {"archive": archive, "paths": paths or [], "excludes": excludes or []}
    body |= {"host": host} if host else {}
    made = client.post("/restores", body | {"download": True}, once=True)
    found = made["restore"]["id"]
    try:
        written = save(client, f"/restores/{segment(found)}/content", to)
    except BaseException:
        with contextlib.suppress(CommandError):
            client.post(f"/jobs/{made['job']['id']}/cancel")
        raise
    if to == "-":
        return
    if output.is_json():
        output.emit({"restore": found, "file": str(written), "bytes": written.stat().st_size})
    else:
        print(f"{written}: {output.size(written.stat().st_size)}")


def save(client: Client, path: str, to: str) -> Path:
    """Write what `path` gives to a file, which is there only once it is whole, or to standard output."""
    with client.content(path) as (name, pieces):
        if to == "-":
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return Path("-")
        goal = Path(to or Path(name).name or "download.tar")
        if goal.exists():
            raise CommandError(f"{goal} is there already: name another file with --to.", USAGE)
        part = goal.with_name(f".{goal.name}.part")
        try:
            with part.open("wb") as file:
                part.chmod(0o600)
                for piece in pieces:
                    file.write(piece)
            part.rename(goal)
        except OSError as error:
            raise CommandError(f"{goal} cannot be written: {error.strerror}.", FAILED) from error
        finally:
            part.unlink(missing_ok=True)
        return goal


@settings.command("show", epilog=examples("saveos settings show"))
def show_settings() -> None:
    """Show what holds for all of the tenant."""
    found = Client().get("/settings")
    if output.is_json():
        output.emit(found)
        return
    output.fields(found, {"content through controller": lambda s: _word(s["content_through_controller"])})


@settings.command("set", epilog=examples("saveos settings set --content-through-controller off"))
def set_settings(
    content: Annotated[
        str,
        typer.Option(
            "--content-through-controller",
            help="on or off: downloads, restores to other hosts, previews and text differences of files.",
        ),
    ] = "",
) -> None:
    """Change what holds for all of the tenant."""
    if content not in ("on", "off"):
        raise CommandError("Say --content-through-controller on, or off.", USAGE)
    found = Client().patch("/settings", {"content_through_controller": content == "on"})
    if output.is_json():
        output.emit(found)
    else:
        print(f"content through controller: {_word(found['content_through_controller'])}")


def _word(on: bool) -> str:
    return "on" if on else "off"
