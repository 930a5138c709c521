"""Commands about the recovery key, what hosts sealed to it, and recovery kits.

The key pair is made here, on the person's machine, and escrow is opened here: the private half is sent to
nobody, but to the controller in mode `managed`.
"""

import base64
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group, moment
from saveos.cli.errors import FINDINGS, REFUSED, UNREACHABLE, USAGE, CommandError

recovery = group("The recovery key, escrow and recovery kits: restore when host and controller are gone.")

KeyFile = Annotated[
    Path | None,
    typer.Option("--key", help="File with the recovery key's private half (not needed in mode managed)."),
]
HostName = Annotated[str, typer.Argument(help="A host, by name or id.", metavar="HOST")]
Before = Annotated[
    str,
    typer.Option(
        help="What the host sealed before this time (3d, 2026-11-23, 2026-11-23T14:00): where somebody "
        "broke into it since.",
        metavar="TIME",
    ),
]
MANAGED = "managed: the controller holds the private half too, so whoever controls it can read every repository"
OFFLINE = "offline: the controller cannot open what hosts sealed"


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(recovery, name="recovery")


@recovery.command(
    "init",
    epilog=examples(
        "saveos recovery init --output /media/stick/saveos-recovery.key",
        "saveos recovery init > recovery.key      shown once: keep it away from the controller",
        "saveos recovery init --managed           the controller keeps it: easier, but it can then read all",
    ),
)
def init(
    output_file: Annotated[
        Path | None, typer.Option("--output", help="Write the private half to this new file (0600).")
    ] = None,
    managed: Annotated[
        bool, typer.Option("--managed", help="The controller keeps the private half, too.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Retire the key that is there.")] = False,
) -> None:
    """Make the recovery key pair on this machine; hosts seal their secrets to its public half.

    The private half is written to --output or shown once, and is stored nowhere else. Without it nobody can
    open the escrow: keep two copies. Provision the hosts afterwards, so that they seal.
    """
    from saveos.core import sealing

    client = Client()
    before = client.get("/recovery")["key"]
    if before and not replace:
        raise CommandError(
            f"There is a recovery key already ({before['fingerprint'][:16]}, {before['mode']}). --replace "
            "retires it: keep its private half for what is sealed to it, and provision the hosts.",
            REFUSED,
        )
    public, private = sealing.new_pair()
    if output_file:
        _write(output_file, f"{private}\n", new=True)
    body = {"public_key": public, "mode": "managed" if managed else "offline", "replace": replace}
    try:
        made = client.post("/recovery", body | ({"private_key": private} if managed else {}))
    except CommandError as error:
        if output_file and error.code != UNREACHABLE:
            output_file.unlink(missing_ok=True)
        raise
    shown = not output_file and not managed
    if output.is_json():
        told = {"private_key": private} if shown else {"file": str(output_file) if output_file else None}
        output.emit(made | told)
        return
    if shown:
        print(private)
    _tell(f"Recovery key {made['fingerprint'][:16]}, {MANAGED if managed else OFFLINE}.")
    if output_file:
        _tell(
            f"Its private half is in {output_file} and nowhere else: keep two copies, away from the controller."
        )
    elif shown:
        _tell("The line above is its private half. It is shown once and stored nowhere: keep two copies of it.")
    _tell("Hosts seal at their next provisioning: saveos maintenance provision --all --wait")


@recovery.command("show", epilog=examples("saveos recovery show"))
def show() -> None:
    """Show the recovery key in force, and how many repositories have an escrow that it opens."""
    found = Client().get("/recovery")
    if output.is_json():
        output.emit(found)
        return
    if not found["key"]:
        print("There is no recovery key: saveos recovery init --output FILE")
        return
    output.fields(
        found,
        {
            "fingerprint": lambda f: f["key"]["fingerprint"],
            "public key": lambda f: f["key"]["public_key"],
            "mode": lambda f: MANAGED if f["key"]["mode"] == "managed" else OFFLINE,
            "made": lambda f: output.when(f["key"]["created_at"]),
            "escrow": lambda f: (
                f"{f['repositories']['fresh']} fresh, {f['repositories']['stale']} of an earlier key"
            ),
            "retired": lambda f: [each["fingerprint"][:16] for each in f["retired"]],
        },
    )


@recovery.command("status", epilog=examples("saveos recovery status", "saveos recovery status --all --json"))
def status(limit: Limit = 50, everything: All = False) -> None:
    """Show the state of every repository's escrow; exit 3 when one is not fresh.

    fresh: the recovery key in force opens it; stale: only an earlier one does; none: nothing is sealed yet.
    Provision the host for the last two.
    """
    body = Client().page("/recovery/escrows", None if everything else limit)
    columns = {
        "host": "host",
        "repository": "repository_id",
        "escrow": "state",
        "sealed": lambda row: output.when(row["sealed_at"]),
    }
    output.page(body, columns, "There is no repository.")
    if any(row["state"] != "fresh" for row in body["items"]):
        raise typer.Exit(FINDINGS)


@recovery.command(
    "open",
    epilog=examples(
        "saveos recovery open web1 --key /media/stick/saveos-recovery.key --output web1-secrets",
        "saveos recovery open --kit saveos-recovery-web1 --key FILE      needs no controller",
    ),
)
def open_(
    host: Annotated[str, typer.Argument(help="A host, by name or id.", metavar="[HOST]")] = "",
    key: KeyFile = None,
    target: Annotated[
        Path | None, typer.Option("--output", help="New directory for passphrase and key export (0700).")
    ] = None,
    kit_dir: Annotated[
        Path | None, typer.Option("--kit", help="Open a recovery kit in place, without any controller.")
    ] = None,
    before: Before = "",
) -> None:
    """Open what a host sealed, here on this machine: passphrase and key export of each repository."""
    if bool(host) == bool(kit_dir):
        raise CommandError("Name either a HOST, or a recovery kit with --kit DIRECTORY.", USAGE)
    if kit_dir:
        opened = _open_kit(kit_dir, key)
        place = kit_dir
    else:
        place = target or Path(f"saveos-secrets-{host}")
        client = Client()
        items = client.get(f"/hosts/{segment(host)}/escrow", before=_earlier(before))["items"]
        opened = [_opened(item, _private(client, key, item["recovery_key"])) for item in items]
        _directory(place, new=True)
        for secret in opened:
            own = place / secret["repository_id"]
            _directory(own)
            _write_opened(own, secret)
            _write(own / "url", f"{secret['url']}\n")
    _report(place, opened)


@recovery.command(
    "kit",
    epilog=examples(
        "saveos recovery kit web1 --output /media/stick        sealed: safe to keep, print kit.html",
        "saveos recovery kit web1 --output /root --key FILE    opened: restore.sh then needs borg only",
    ),
)
def kit(
    host: HostName,
    target: Annotated[
        Path, typer.Option("--output", help="Directory to put saveos-recovery-HOST into.")
    ] = Path(),
    key: KeyFile = None,
    opened: Annotated[
        bool, typer.Option("--open", help="Open it with the controller's own private half (mode managed).")
    ] = False,
    before: Before = "",
) -> None:
    """Write a host's recovery kit: text, printable page, and restore.sh that needs sh, borg and ssh only.

    Sealed, unless --key opens it: then the passphrase is in it, and it belongs where secrets belong.
    """
    client = Client()
    then = f"?before={quote(_earlier(before), safe='')}" if before else ""
    packed = zipfile.ZipFile(io.BytesIO(client.get_bytes(f"/hosts/{segment(host)}/recovery-kit{then}")))
    place = _unpack(packed, target)
    found = _open_kit(place, key, client) if key or opened else []
    _report(place, found, kit=True)


def _open_kit(place: Path, key: Path | None, client: Client | None = None) -> list[dict[str, Any]]:
    found = []
    for own in sorted((place / "repositories").glob("*")):
        try:
            item = {
                "repository_id": own.name,
                "sealed": (own / "sealed").read_text().strip(),
                "recovery_key": (own / "recovery-key").read_text().strip(),
            }
        except OSError as error:
            raise CommandError(f"{own} is no part of a recovery kit: {error.strerror}.", USAGE) from error
        if key is None and client is None:
            raise CommandError("Name the file with the recovery key's private half: --key FILE.", USAGE)
        secret = _opened(item, _private(client, key, item["recovery_key"]))
        _write_opened(own, secret)
        found.append(secret)
    if not found:
        raise CommandError(f"{place} is no recovery kit: it has no repositories.", USAGE)
    return found


def _private(client: Client | None, key: Path | None, fingerprint: str) -> str:
    """Return the private half for what is sealed to `fingerprint`, from the file or a managing controller."""
    from saveos.core import sealing

    if key is None:
        assert client is not None  # noqa: S101 - the callers see to it
        found: str = client.post(f"/recovery/private-key?fingerprint={fingerprint}")["private_key"]
        return found
    try:
        private = key.read_text().strip()
        own = sealing.fingerprint(sealing.public_of(private))
    except OSError as error:
        raise CommandError(f"{key} cannot be read: {error.strerror}.", USAGE) from error
    except (sealing.WrongKey, UnicodeDecodeError) as error:
        raise CommandError(f"{key} holds no recovery key: {error}.", USAGE) from error
    if own != fingerprint:
        raise CommandError(
            f"This is sealed to the recovery key {fingerprint[:16]}, and {key} is {own[:16]}: use its file.",
            REFUSED,
        )
    return private


def _opened(item: dict[str, Any], private: str) -> dict[str, Any]:
    from saveos.core import sealing

    try:
        plain = json.loads(sealing.open_sealed(base64.b64decode(item["sealed"]), private))
    except (sealing.WrongKey, ValueError) as error:
        raise CommandError(
            f"The escrow of repository {item['repository_id']} does not open: {error}. "
            "What the host sealed earlier is kept, too: --before TIME."
        ) from error
    if not isinstance(plain, dict) or plain.get("repository_id") != item["repository_id"]:
        raise CommandError(
            f"The escrow of repository {item['repository_id']} belongs to another one: the host or the "
            "controller mixed them up, or someone did.",
            REFUSED,
        )
    return plain


def _write_opened(own: Path, secret: dict[str, Any]) -> None:
    _write(own / "passphrase", f"{secret['passphrase']}\n")
    _write(own / "key-export", secret["key_export"])


def _unpack(packed: zipfile.ZipFile, target: Path) -> Path:
    """Unpack a kit below `target` and return its directory, which must be new."""
    names = packed.namelist()
    top = names[0].partition("/")[0] if names else ""
    if not top or any(not name.startswith(f"{top}/") or ".." in Path(name).parts for name in names):
        raise CommandError(
            "The controller's answer is no recovery kit: bring command and controller to one version."
        )
    place = target / top
    _directory(place, new=True)
    for entry in packed.infolist():
        file = target / entry.filename
        _directory(file.parent)
        _write(file, packed.read(entry).decode())
        file.chmod((entry.external_attr >> 16) & 0o700 or 0o600)
    return place


def _earlier(before: str) -> str:
    return moment(before, "--before") if before else ""


def _directory(path: Path, *, new: bool = False) -> None:
    if new and path.exists():
        raise CommandError(f"{path} is there already: name another place with --output.", USAGE)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{path} cannot be made: {error.strerror}.", USAGE) from error


def _write(path: Path, text: str, *, new: bool = False) -> None:
    """Write a file that only its owner reads. Raises CommandError where one is there and must not be."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_EXCL if new else os.O_TRUNC)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise CommandError(f"{path} is there already: a key is never overwritten.", USAGE) from error
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.", USAGE) from error


def _report(place: Path, opened: list[dict[str, Any]], *, kit: bool = False) -> None:
    names = [secret["repository_id"] for secret in opened]
    if output.is_json():
        output.emit({"directory": str(place), "opened": names})
        return
    if kit and not opened:
        print(
            f"The kit is in {place}, sealed: print {place / 'kit.html'}, and keep it away from the controller."
        )
        return
    print(
        f"{place} holds the secrets of {len(names)} repositor{'y' if len(names) == 1 else 'ies'} in plain text."
    )
    if kit or (place / "restore.sh").exists():
        print(f"Next: sh {place / 'restore.sh'} list   (ssh-key first, for a repository on a storage server)")


def _tell(text: str) -> None:
    typer.echo(text, err=True)
