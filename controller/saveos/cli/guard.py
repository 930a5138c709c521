"""Commands about what guards say of repositories: hold, approve, undo, check, copies."""

import uuid
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import (
    All,
    Check,
    Everything,
    Groups,
    Hosts,
    Limit,
    Wait,
    confirm,
    examples,
    playbook,
    targets,
)
from saveos.cli.errors import FAILED, FINDINGS, USAGE, CommandError
from saveos.cli.jobs import accepted

Name = Annotated[str, typer.Argument(help="A host, by name, or a repository's id.", metavar="[NAME]")]
One = Annotated[str, typer.Argument(help="A host with one repository, or a repository's id.", metavar="NAME")]
Kind = Annotated[str, typer.Option("--kind", help="keyless (on the server), archives or data (by the host).")]


def _checked(found: dict[str, Any]) -> str:
    """Return the last checks in a word: failed ones first, else when the last was."""
    kinds = ("keyless", "archives", "data")
    broken = [kind for kind in kinds if found[f"{kind}_state"] in ("damaged", "failed")]
    if broken:
        return f"{', '.join(broken)} failed"
    times = [found[f"{kind}_at"] for kind in kinds if found[f"{kind}_at"]]
    return output.when(max(times)) if times else "never"


COLUMNS: dict[str, Any] = {
    "host": "host",
    "repository": "repository_id",
    "server": lambda r: r.get("server") or "-",
    "state": lambda r: r.get("state") or "not guarded",
    "why": lambda r: ", ".join(each["code"] for each in r["reasons"] if each["holds"]) or "-",
    "size": lambda r: output.size(r.get("size")),
    "held": lambda r: output.size(r.get("held_bytes")),
    "copies": "copies",
    "checked": _checked,
    "told": lambda r: output.when(r.get("reported_at")),
}


def add_to(repositories: typer.Typer) -> None:
    """Mount the commands about repositories."""
    for command, epilog, function in (
        ("guard", ("saveos repositories guard", "saveos repositories guard web1"), show_guard),
        ("approve", ("saveos repositories approve web1 --reason freeable --days 1",), approve),
        ("approvals", ("saveos repositories approvals web1",), list_approvals),
        ("revoke", ("saveos repositories revoke web1 0199a7c4-…",), revoke),
        ("copies", ("saveos repositories copies web1",), list_copies),
        (
            "undo",
            ("saveos repositories undo web1 --check --wait", "saveos repositories undo web1 --wait"),
            undo,
        ),
        ("check", ("saveos repositories check web1 --kind data --wait",), check_one),
        ("checks", ("saveos repositories checks web1",), list_checks),
        ("growth", ("saveos repositories growth web1 --days 30",), show_growth),
        ("servers", ("saveos repositories servers",), list_servers),
    ):
        repositories.command(command, epilog=examples(*epilog))(function)


def add_operations(maintenance: typer.Typer) -> None:
    """Mount the commands that run operations."""
    maintenance.command("guard", epilog=examples("saveos maintenance guard vault --wait"))(run_guard)
    maintenance.command(
        "check",
        epilog=examples("saveos maintenance check --all", "saveos maintenance check web1 --kind data --wait"),
    )(run_check)


def show_guard(
    name: Name = "",
    state: Annotated[str, typer.Option(help="held, damaged, missing, approved, ok, compacted or broken.")] = "",
    server: Annotated[str, typer.Option(help="Only of this storage server.")] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """Show what guards say: why a repository is held, and what compact would destroy. Ends with 3 when held."""
    client = Client()
    if name and _is_id(name):
        body: dict[str, Any] = {"items": [client.get(f"/repositories/{segment(name)}/guard")], "next": None}
    else:
        query = {"host": name, "state": state, "server": server}
        body = client.page("/repositories/guard", None if everything or name else limit, **query)
    output.page(body, COLUMNS, "No repository: saveos repositories list")
    held = [each for each in body["items"] if each["state"] in ("held", "damaged", "missing")]
    if name and not output.is_json():
        for each in body["items"]:
            _explain(each)
    if held:
        raise typer.Exit(FINDINGS)


def _explain(found: dict[str, Any]) -> None:
    """Print the reasons of a hold in words, and how to go on."""
    for reason in found["reasons"]:
        print(f"\n{reason['code']}: {output.clean(reason['message'])}")
        for archive in reason.get("would_destroy", []):
            print(f"  would destroy {output.clean(archive.get('name') or archive.get('id'))}")
    if found["state"] == "held":
        identity = found["repository_id"]
        print(f"\ndigest {found['digest'] or '-'}")
        print(f"If that was you: saveos repositories approve {identity} --reason CODE")
        print(f"If it was not: saveos repositories undo {identity} --check --wait")


def approve(
    name: One,
    reason: Annotated[str, typer.Option(help="The reason's code, as saveos repositories guard shows it.")],
    digest: Annotated[
        str, typer.Option(help="What was shown; without it, what is shown now, after a question.")
    ] = "",
    days: Annotated[int, typer.Option(min=1, max=30, help="Ends after so many days.")] = 1,
    note: Annotated[str, typer.Option(help="Why, for who reads the audit trail.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Approve that the guard frees space in spite of one reason. Its copies stay as long as it holds them."""
    client = Client()
    found = _find(client, name)
    if not digest:
        if not output.is_json():
            _explain(found)
        if not (yes or confirm(f"Approve {reason} for the repository of {found['host']}?")):
            raise CommandError("Nothing was changed.", FAILED)
        digest = found["digest"]
    body = {"reason": reason, "digest": digest, "days": days, "note": note}
    made = client.post(f"/repositories/{found['repository_id']}/approvals", body)
    if output.is_json():
        output.emit(made)
    else:
        server = output.clean(found["server"] or "SERVER")
        output.say(f"Approved until {output.when(made['until'])}: saveos maintenance guard {server} --wait")


def list_approvals(name: One) -> None:
    """List who approved what of a repository, and until when."""
    client = Client()
    columns = {
        "id": "id",
        "reason": "reason",
        "by": "created_by",
        "at": lambda r: output.when(r["created_at"]),
        "until": lambda r: output.when(r["until"]),
        "revoked": lambda r: output.when(r["revoked_at"]) if r["revoked_at"] else "",
        "note": lambda r: output.clean(r["note"]),
    }
    found = client.page(f"/repositories/{_find(client, name)['repository_id']}/approvals", None)
    output.page(found, columns, "Nothing was approved.")


def revoke(name: One, approval: Annotated[str, typer.Argument(help="The approval's id.")]) -> None:
    """Take an approval back. What the guard did meanwhile stays done."""
    client = Client()
    client.delete(f"/repositories/{_find(client, name)['repository_id']}/approvals/{segment(approval)}")
    output.say("Revoked.")


def list_copies(name: One) -> None:
    """List the copies that the guard holds of a repository: what undo can go back to."""
    client = Client()
    columns = {
        "at": "at",
        "good": lambda c: {True: "yes", False: "no", None: "-"}[c.get("good")],
        "kept because": lambda c: c.get("why") or "-",
        "extra": lambda c: output.size(c.get("extra_bytes")),
    }
    found = client.page(f"/repositories/{_find(client, name)['repository_id']}/copies", None)
    output.page(found, columns, "The guard holds no copy yet: saveos maintenance guard SERVER")


def undo(
    name: One,
    to: Annotated[str, typer.Option(help="A copy's time, or latest-good.")] = "latest-good",
    check: Check = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    wait: Wait = False,
) -> None:
    """Roll a repository back to a copy of the guard, and mend its host. What it replaces stays as a copy."""
    client = Client()
    found = _find(client, name)
    host = found["host"]
    if not (check or yes or confirm(f"Roll the repository of {host} back to {to}?")):
        raise CommandError("Nothing was changed.", FAILED)
    body = {
        "targets": {"hosts": [host]},
        "mode": "check" if check else "run",
        "parameters": {"repository_id": found["repository_id"], "to": to},
    }
    accepted(client, client.post("/maintenance/undo", body, once=True), wait)


def check_one(name: One, kind: Kind = "keyless", wait: Wait = False) -> None:
    """Check one repository now; repairs nothing."""
    client = Client()
    found = _find(client, name)
    parameters = {"kind": kind, "repository_ids": [found["repository_id"]]}
    _start(client, "check", {"hosts": [found["host"]]}, parameters, wait)


def list_checks(name: One, limit: Limit = 20, everything: All = False) -> None:
    """List the checks of a repository and what they found."""
    client = Client()
    columns = {
        "at": lambda c: output.when(c["at"]),
        "kind": "kind",
        "state": "state",
        "took": lambda c: output.duration(c["seconds"]),
        "archives": lambda c: f"{len(c['archives'])}" if c["archives"] else "-",
        "detail": lambda c: output.clean(c["detail"])[:100],
    }
    path = f"/repositories/{_find(client, name)['repository_id']}/checks"
    output.page(client.page(path, None if everything else limit), columns, "Never checked.")


def show_growth(
    name: One, days: Annotated[int, typer.Option(min=1, max=800, help="Look so far back.")] = 30
) -> None:
    """Show how large a repository was, day by day."""
    client = Client()
    columns = {
        "day": "day",
        "used": lambda s: output.size(s["used"]),
        "held by the guard": lambda s: output.size(s["held"]),
    }
    path = f"/repositories/{_find(client, name)['repository_id']}/growth"
    output.page(client.page(path, None, days=str(days)), columns, "No day is known yet.")


def list_servers() -> None:
    """List storage servers: how full, what guards hold back, and when they would be full."""
    columns = {
        "server": "server",
        "repositories": "repositories",
        "held": "held",
        "used": lambda s: output.size(s["used"]),
        "free": lambda s: output.size(s["free"]),
        "held back": lambda s: output.size(s["held_bytes"]),
        "full in": lambda s: "-" if s["full_in_days"] is None else f"{s['full_in_days']} days",
        "holds": lambda s: "-" if s["hold_days"] is None else f"{s['hold_days']} days",
        "guard told": lambda s: output.when(s["reported_at"]),
    }
    output.page(Client().page("/repositories/servers", None), columns, "No storage server.")


def run_guard(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    report: Annotated[bool, typer.Option("--report", help="Only hear what the guard said last.")] = False,
    no_compact: Annotated[bool, typer.Option("--no-compact", help="Judge and copy, but free nothing.")] = False,
    wait: Wait = False,
) -> None:
    """Have the guards of storage servers judge, copy, check what is due, and free what policy let go."""
    asked = targets(hosts, groups, everything)
    parameters = {"mode": "report" if report else "run", "compact": not no_compact}
    _start(Client(instead=playbook("guard", asked)), "guard", asked, parameters, wait)


def run_check(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    kind: Kind = "keyless",
    wait: Wait = False,
) -> None:
    """Check repositories of hosts: keyless on their servers, or archives or all data by the hosts."""
    asked = targets(hosts, groups, everything)
    client = Client(instead=playbook("check", asked, maintenance_kind=kind))
    _start(client, "check", asked, {"kind": kind}, wait)


def _start(
    client: Client, operation: str, asked: dict[str, Any], parameters: dict[str, Any], wait: bool
) -> None:
    body = {"targets": asked, "mode": "run", "parameters": parameters}
    accepted(client, client.post(f"/maintenance/{operation}", body, once=True), wait)


def _find(client: Client, name: str) -> dict[str, Any]:
    """Return what the guard says of the one repository that a name means."""
    if _is_id(name):
        found: dict[str, Any] = client.get(f"/repositories/{segment(name)}/guard")
        return found
    items = client.page("/repositories/guard", None, host=name)["items"]
    if len(items) != 1:
        known = ", ".join(each["repository_id"] for each in items)
        what = f"has several repositories, name one: {known}" if items else "has no repository"
        raise CommandError(f"{name} {what}", USAGE)
    return dict(items[0])


def _is_id(name: str) -> bool:
    try:
        uuid.UUID(name)
    except ValueError:
        return False
    return True
