"""Commands about enrolment: tokens that let hosts ask to join, and what is decided about those that asked."""

import json
import time
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group
from saveos.cli.errors import FAILED, REFUSED, CommandError

enrol = group("Hosts that ask to join: tokens, the waiting list, approval.")
tokens = group("Enrolment tokens: each lets so many hosts ask to join, until a time.")
LOOK_SECONDS = 2.0
Host = Annotated[str, typer.Argument(help="The host's name, or the registration's id.", metavar="HOST")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    enrol.add_typer(tokens, name="tokens")
    app.add_typer(enrol, name="enrol")


@tokens.command(
    "create",
    epilog=examples(
        "saveos enrol tokens create web1       one host, within an hour, then approve it",
        "saveos enrol tokens create autumn --hours 72 --uses 200 --policy web --group web --pre-approve",
        "saveos --json enrol tokens create ci --pre-approve | jq -r .command   the line to run on the host",
    ),
)
def create_token(
    name: Annotated[str, typer.Argument(help="What it is for, as the trail will say.")],
    hours: Annotated[float, typer.Option("--hours", min=0.02, help="How long it may be used.")] = 1,
    uses: Annotated[int, typer.Option("--uses", min=1, help="How many hosts may use it.")] = 1,
    policy: Annotated[str, typer.Option(help="Policy of its hosts (else the default one).")] = "",
    groups: Annotated[list[str] | None, typer.Option("--group", "-g", help="Group; may be repeated.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", help="Tag; may be repeated.")] = None,
    pre_approve: Annotated[
        bool, typer.Option("--pre-approve", help="Let its hosts in without asking anybody.")
    ] = False,
) -> None:
    """Make an enrolment token, and show the line to run as root on a host. It is shown once."""
    body: dict[str, Any] = {
        "name": name,
        "minutes": max(1, round(hours * 60)),
        "max_uses": uses,
        "groups": groups or [],
        "tags": tags or [],
        "pre_approved": pre_approve,
    }
    if policy:
        body["policy"] = policy
    made = Client().post("/enrolment/tokens", body)
    if output.is_json():
        output.emit(made)
        return
    print(made["command"])
    output.say("")
    output.say(
        f"Run that as root on a host, before {output.when(made['expires_at'])} ({uses} at most). "
        + ("It is then provisioned by itself." if pre_approve else "Then: saveos enrol approve HOST")
    )


@tokens.command("list", epilog=examples("saveos enrol tokens list"))
def list_tokens(limit: Limit = 50, everything: All = False) -> None:
    """List enrolment tokens (never their secrets)."""
    columns = {
        "id": "id",
        "name": "name",
        "state": "state",
        "uses": lambda t: f"{t['uses']}/{t['max_uses']}",
        "ends": lambda t: output.when(t["expires_at"]),
        "policy": "policy",
        "groups": "groups",
        "approval": lambda t: "none needed" if t["pre_approved"] else "by a person",
        "made by": "created_by",
    }
    body = Client().page("/enrolment/tokens", None if everything else limit)
    output.page(body, columns, "No token: saveos enrol tokens create NAME")


@tokens.command("revoke", epilog=examples("saveos enrol tokens revoke 0199a7c4-…"))
def revoke_token(token: Annotated[str, typer.Argument(help="The token's id.", metavar="ID")]) -> None:
    """Make a token useless, now. Hosts that used it already go on."""
    Client().delete(f"/enrolment/tokens/{segment(token)}")
    if output.is_json():
        output.emit({"revoked": token})
    else:
        print(f"{token} is revoked.")


@enrol.command("list", epilog=examples("saveos enrol list --state waiting"))
def list_registrations(
    state: Annotated[str, typer.Option(help="waiting, approved, provisioning, done, refused or failed.")] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List hosts that asked to join, newest first."""
    columns = {
        "name": "name",
        "state": "state",
        "address": lambda r: f"{r['address']}:{r['port']}",
        "system": "os",
        "asked": lambda r: output.when(r["created_at"]),
        "token": "token_name",
        "fingerprint": lambda r: next(iter(r["fingerprints"]), ""),
        "reason": "reason",
    }
    body = Client().page("/enrolment/registrations", None if everything else limit, state=state)
    output.page(body, columns, "No host asked to join: saveos enrol tokens create NAME")


@enrol.command(
    "approve",
    epilog=examples("saveos enrol approve web1", "saveos enrol approve web1 && saveos enrol watch web1"),
)
def approve(host: Host) -> None:
    """Let a host in; it is then provisioned by itself. Compare its fingerprints with the host's own first."""
    found = Client().post(f"/enrolment/registrations/{segment(host)}/approve")
    if output.is_json():
        output.emit(found)
        return
    print(f"{found['name']} at {found['address']} is let in, and provisioned when it answers. Its keys:")
    for line in found["fingerprints"]:
        print(f"  {line}")


@enrol.command("refuse", epilog=examples("saveos enrol refuse web1 --reason 'this machine is retired'"))
def refuse(host: Host, reason: Annotated[str, typer.Option(help="Why; the host is told so.")] = "") -> None:
    """Send a host away."""
    found = Client().post(f"/enrolment/registrations/{segment(host)}/refuse", {"reason": reason})
    if output.is_json():
        output.emit(found)
    else:
        print(f"{found['name']} is refused: {output.clean(found['reason'])}")


@enrol.command("watch", epilog=examples("saveos enrol watch", "saveos enrol watch web1 --timeout 600"))
def watch(
    host: Annotated[str, typer.Argument(help="End when this one is done.", metavar="[HOST]")] = "",
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to watch; 0 is for ever.")] = 0,
) -> None:
    """Show each change of the waiting list as it happens. With HOST, end with its outcome."""
    client, seen = Client(), dict[str, str]()
    end = time.monotonic() + timeout if timeout else None
    while True:
        rows = _watched(client, host)
        for row in reversed(rows):
            if seen.get(row["id"]) != row["state"]:
                seen[row["id"]] = row["state"]
                _tell(row)
        if host and rows and rows[0]["state"] in ("done", "refused", "failed"):
            return _end(rows[0])
        if end is not None and time.monotonic() >= end:
            if host:
                raise CommandError(f"{host} is not enrolled yet: saveos enrol list", FAILED)
            return None
        time.sleep(LOOK_SECONDS)


def _watched(client: Client, host: str) -> list[dict[str, Any]]:
    if not host:
        rows: list[dict[str, Any]] = client.page("/enrolment/registrations", 100)["items"]
        return rows
    return [client.get(f"/enrolment/registrations/{segment(host)}")]


def _tell(row: dict[str, Any]) -> None:
    if output.is_json():
        print(json.dumps(row, ensure_ascii=False), flush=True)
        return
    told = f"{output.clean(row['name'])}  {row['state']}"
    if row["state"] == "waiting":
        told += f"  {row['address']}  {', '.join(row['fingerprints'])}"
    print(told + (f"  {output.clean(row['reason'])}" if row["reason"] else ""), flush=True)


def _end(row: dict[str, Any]) -> None:
    if row["state"] != "done":
        code = REFUSED if row["state"] == "refused" else FAILED
        raise CommandError(f"{row['name']} is {row['state']}: {row['reason']}", code)
