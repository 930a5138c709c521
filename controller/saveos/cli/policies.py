"""Commands about policies."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group

policies = group("What is backed up, when, and how long it is kept.")
Name = Annotated[str, typer.Argument(help="The policy's name.")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(policies, name="policies")


@policies.command("list")
def list_policies(limit: Limit = 50, everything: All = False) -> None:
    """List policies."""
    columns = {
        "name": "name",
        "default": lambda p: "yes" if p.get("is_default") else "",
        "sources": "sources",
        "schedule": "schedule",
        "keeps": lambda p: keeps(p.get("retention") or {}),
    }
    body = Client().page("/policies", None if everything else limit)
    output.page(body, columns, "No policy yet: saveos policies set NAME --source /etc")


@policies.command("show")
def show_policy(name: Name) -> None:
    """Show one policy."""
    fields = {
        "name": "name",
        "default": lambda p: "yes" if p.get("is_default") else "no",
        "sources": "sources",
        "excludes": "excludes",
        "schedule": "schedule",
        "jitter": lambda p: f"{p.get('jitter_minutes')} min",
        "late after": lambda p: f"{p.get('grace_minutes')} min",
        "keeps": lambda p: keeps(p.get("retention") or {}),
        "compression": "compression",
        "hooks": lambda p: ", ".join(f"{k} {n}" for k, n in (p.get("hooks") or {}).items() if n),
    }
    output.fields(Client().get(f"/policies/{segment(name)}"), fields)


@policies.command(
    "set",
    epilog=examples(
        "saveos policies set web --source /etc --source /srv --schedule '30 1 * * *'",
        "saveos policies set web --keep-daily 14 --keep-monthly 12",
        "saveos policies set web --default",
    ),
)
def set_policy(
    name: Name,
    sources: Annotated[
        list[str] | None, typer.Option("--source", "-s", help="Directory; may be repeated.")
    ] = None,
    excludes: Annotated[
        list[str] | None, typer.Option("--exclude", "-x", help="Pattern; may be repeated.")
    ] = None,
    schedule: Annotated[str, typer.Option(help="Five-field cron expression.")] = "",
    keep_within: Annotated[str, typer.Option(help="Keep all of this time, like 7d.")] = "",
    keep_daily: Annotated[int | None, typer.Option(min=0)] = None,
    keep_weekly: Annotated[int | None, typer.Option(min=0)] = None,
    keep_monthly: Annotated[int | None, typer.Option(min=0)] = None,
    keep_yearly: Annotated[int | None, typer.Option(min=0)] = None,
    compression: Annotated[str, typer.Option(help="Borg's form, like zstd,3.")] = "",
    default: Annotated[bool, typer.Option("--default", help="Use it where a host names none.")] = False,
) -> None:
    """Make a policy, or change what is named of one. Hosts follow at their next provisioning."""
    client = Client()
    found = next((p for p in client.page("/policies", None)["items"] if p["name"] == name), None)
    kept = {
        "keep_within": keep_within or None,
        "keep_daily": keep_daily,
        "keep_weekly": keep_weekly,
        "keep_monthly": keep_monthly,
        "keep_yearly": keep_yearly,
    }
    retention = {key: value for key, value in kept.items() if value is not None}
    body: dict[str, Any] = {
        "sources": sources,
        "excludes": excludes,
        "schedule": schedule or None,
        "retention": {**((found or {}).get("retention") or {}), **retention} if retention else None,
        "compression": compression or None,
        "is_default": True if default else None,
    }
    body = {key: value for key, value in body.items() if value is not None}
    policy = (
        client.patch(f"/policies/{segment(name)}", body)
        if found
        else client.post("/policies", {"name": name} | body)
    )
    if output.is_json():
        output.emit(policy)
    else:
        done = "Changed" if found else "Made"
        print(f"{done} policy {name}. Hosts follow with: saveos maintenance provision --all --wait")


def keeps(retention: dict[str, Any]) -> str:
    """Return a retention as "7d, 7 daily, 4 weekly"."""
    words = [str(retention["keep_within"])] if retention.get("keep_within") else []
    words += [f"{n} {key.removeprefix('keep_')}" for key, n in retention.items() if key != "keep_within" and n]
    return ", ".join(words)
