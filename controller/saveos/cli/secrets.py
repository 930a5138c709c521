"""Commands of the operation `secrets`: what hosts and controller hold, and giving them new ones."""

import json
import os
import secrets as randomness
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from saveos.cli import output
from saveos.cli.client import Client, read_login
from saveos.cli.common import All, Everything, Groups, Hosts, Limit, Wait, examples, group, targets
from saveos.cli.errors import USAGE, CommandError
from saveos.cli.findings import finish, run_operation
from saveos.cli.jobs import accepted, follow

secrets = group(
    "Passphrases, SSH keys and tokens: which there are, how old they are, and new ones. Values are never "
    "shown.\n\nA rotation keeps old and new beside each other until the new one is proven to work and its "
    "sealed copy is stored; one that is interrupted is finished by the next backup or heartbeat of the host."
)

Kind = Annotated[
    Literal["passphrase", "ssh-key", "agent-token", "controller-ssh-key"],
    typer.Option("--kind", "-k", help="What to rotate; controller-ssh-key is the key that reaches the hosts."),
]
Only = Annotated[bool, typer.Option("--check", "--dry-run", help="Change nothing, show what would be rotated.")]
Older = Annotated[int, typer.Option("--older-than", min=0, help="Only what was made so many days ago.")]
Oldest = Annotated[int, typer.Option("--max-age", min=0, help="Days after which a secret is a finding.")]


def add_to(maintenance: typer.Typer) -> None:
    """Mount these commands below `saveos maintenance`."""
    maintenance.add_typer(secrets, name="secrets")


@secrets.command(
    "list", epilog=examples("saveos maintenance secrets list", "saveos maintenance secrets list --host web1")
)
def list_secrets(
    host: Annotated[str, typer.Option(help="Only of this host, by name or id.")] = "",
    kind: Annotated[str, typer.Option("--kind", "-k", help="passphrase, escrow, ssh-key or agent-token.")] = "",
    older: Older = 0,
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List what hosts hold, as they told last, and the controller's own keys: kinds and ages, no values."""
    client = Client()
    page = client.page(
        "/secrets", None if everything else limit, host=host, kind=kind, older_than_days=str(older)
    )
    own = client.get("/secrets/controller") if not (host or kind or older) else []
    if output.is_json():
        output.emit(page | {"controller": own})
        return
    columns: dict[str, Any] = {
        "kind": "kind",
        "host": "host",
        "made": lambda s: output.when(s["made_at"]),
        "rotated": lambda s: output.when(s["rotated_at"]),
        "escrow": "escrow",
        "state": _state,
        "used by": "used_by",
    }
    output.page(page, columns, "No host told of its secrets yet: saveos maintenance secrets validate --all")
    for each in own:
        print(f"{each['kind']}  made {output.when(each['made_at'])}  {each['fingerprint'][:50]}")
        print(f"    rotate: {each['rotate']}")
        if each.get("waiting"):
            more = each["waiting"] - len(each["waiting_hosts"])
            print(f"    waits for: {', '.join(each['waiting_hosts'])}" + (f" and {more} more" if more else ""))


def _state(told: dict[str, Any]) -> str:
    if told["open"]:
        return "rotation interrupted"
    if not told["made_at"]:
        return "not there"  # such as the escrow of a host that has no recovery key to seal to
    return "ok" if told["private"] else "readable by others"


@secrets.command("validate", epilog=examples("saveos maintenance secrets validate --all --wait"))
def validate(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    max_age: Oldest = 365,
    wait: Wait = False,
) -> None:
    """Ask hosts what they hold: missing, too old, readable by others, or an interrupted rotation."""
    run_operation("secrets", hosts, groups, everything, wait=wait, parameters={"max_age_days": max_age})


@secrets.command("cleanup", epilog=examples("saveos maintenance secrets cleanup --all --wait"))
def cleanup(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    check: Only = False,
    wait: Wait = False,
) -> None:
    """Finish interrupted rotations, so that no former secret is left."""
    run_operation("secrets", hosts, groups, everything, check=check, wait=wait, parameters={"settle": True})


@secrets.command(
    "rotate",
    epilog=examples(
        "saveos maintenance secrets rotate web1 --kind passphrase --wait",
        "saveos maintenance secrets rotate --all --kind agent-token --older-than 180 --wait",
        "saveos maintenance secrets rotate --all --kind controller-ssh-key --wait",
        "saveos maintenance secrets rotate --vault group_vars/all/vault.yml --old-password-file old "
        "--new-password-file new",
    ),
)
def rotate(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    kind: Kind = "passphrase",
    older: Older = 0,
    check: Only = False,
    wait: Wait = False,
    vault: Annotated[
        list[Path] | None,
        typer.Option("--vault", help="Re-key this Ansible Vault file instead; may be repeated: all or none."),
    ] = None,
    old_password_file: Annotated[Path | None, typer.Option(help="File with the vault's password.")] = None,
    new_password_file: Annotated[
        Path | None, typer.Option(help="File with its new password; made (0600) where there is none.")
    ] = None,
) -> None:
    """Give hosts new secrets, or Ansible Vault files of a GitOps inventory a new password."""
    if vault:
        _rekey(vault, old_password_file, new_password_file, check=check)
        return
    if kind == "controller-ssh-key":
        _rekey_hosts(targets(hosts, groups, everything), older, check=check, wait=wait)
        return
    run_operation(
        "secrets",
        hosts,
        groups,
        everything,
        check=check,
        wait=wait,
        parameters={"rotate": kind, "older_than_days": older},
    )


def _rekey_hosts(asked: dict[str, Any], older: int, *, check: bool, wait: bool) -> None:
    """Rotate the controller's own key, which only the controller can."""
    client = Client()
    body = {"targets": asked, "mode": "check" if check else "run", "parameters": {"older_than_days": older}}
    job = client.post("/maintenance/rekey", body, once=True)
    if wait:
        finish(client, follow(client, job["id"]))
    accepted(client, job, wait=False)


def _rekey(files: list[Path], old: Path | None, new: Path | None, *, check: bool) -> None:
    from saveos.cli import vaults

    if old is None or new is None:
        raise CommandError("Name --old-password-file and --new-password-file.", USAGE)
    if not new.exists() and not check:
        _write_private(new, randomness.token_urlsafe(32) + "\n")
    try:
        before = old.read_text().strip()
        after = new.read_text().strip() if new.exists() else before
    except OSError as error:
        raise CommandError(f"{error.filename} cannot be read: {error.strerror}.") from None
    counts = vaults.rekey(files, before, after, check=check)
    if output.is_json():
        output.emit({"rekeyed": counts, "check": check})
        return
    for path, count in counts.items():
        print(f"{path}: {count} value{'s' if count != 1 else ''} {'would be ' if check else ''}re-keyed")


@secrets.command("generate", epilog=examples("saveos maintenance secrets generate --output /root/db-password"))
def generate(
    target: Annotated[Path, typer.Option("--output", help="File to write it to (0600); it must not exist.")],
    size: Annotated[int, typer.Option("--bytes", min=16, max=1024, help="Random bytes in it.")] = 32,
) -> None:
    """Make a random secret and write it to a file that only its owner reads; it is not printed."""
    _write_private(target, randomness.token_urlsafe(size) + "\n")
    if output.is_json():
        output.emit({"file": str(target), "bits": size * 8})
    else:
        print(f"{target} holds a new secret of {size * 8} bits.")


@secrets.command(
    "export-env",
    epilog=examples(
        "saveos maintenance secrets export-env                   names, and where to read their values",
        "saveos maintenance secrets export-env --output saveos.env",
    ),
)
def export_env(
    target: Annotated[
        Path | None, typer.Option("--output", help="Write names and values to this new file (0600) instead.")
    ] = None,
) -> None:
    """Show which variables programs need to reach the controller, and where each value is; never the values."""
    login = read_login()
    known = {
        "SAVEOS_URL": (login.url, login.source),
        "SAVEOS_TOKEN": (login.token, login.source),
        "SAVEOS_CA": ("", f"{login.source}, or GET {login.url}/api/v1/ca.pem" if login.ca else ""),
    }
    known = {name: told for name, told in known.items() if told[1]}
    if target is not None:
        lines = [f"{name}={_quoted(value)}\n" for name, (value, _) in known.items() if value]
        if login.ca:
            authority = target.with_name(target.name + ".ca.pem")
            _write_private(authority, login.ca)
            lines.append(f"SAVEOS_CA={_quoted(str(authority.absolute()))}\n")
        _write_private(target, "".join(lines))
    if output.is_json():
        told = {name: source for name, (_, source) in known.items()}
        output.emit({"variables": told, "file": str(target) if target else None})
        return
    for name, (_, source) in known.items():
        print(f"{name}  in {target or source}")


def _quoted(value: str) -> str:
    return json.dumps(value).replace("$", "\\$").replace("`", "\\`")


def _write_private(path: Path, text: str) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(f"{path} is there already: name a new file.", USAGE) from None
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}.") from None
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
