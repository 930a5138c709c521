"""Commands about policies."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group
from saveos.cli.errors import FINDINGS, USAGE, CommandError
from saveos.cli.policy_hosts import add_host_commands
from saveos.cli.policy_versions import add_version_commands
from saveos.cli.simulation import simulate

policies = group("What is backed up, when, and how long it is kept.")
Name = Annotated[str, typer.Argument(help="The policy's name.")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    add_version_commands(policies)
    add_host_commands(policies)
    policies.command(
        "simulate",
        epilog=examples("saveos policies simulate web", "saveos policies simulate web --keep-daily 3"),
    )(simulate)
    app.add_typer(policies, name="policies")


@policies.command("list", epilog=examples("saveos policies list"))
def list_policies(limit: Limit = 50, everything: All = False) -> None:
    """List policies."""
    columns = {
        "name": "name",
        "default": lambda p: "yes" if p.get("is_default") else "",
        "sources": "sources",
        "schedule": lambda p: f"{p.get('schedule')} {p.get('zone')}",
        "keeps": lambda p: keeps(p.get("retention") or {}),
        "version": "version",
        "hosts": "hosts",
    }
    body = Client().page("/policies", None if everything else limit)
    output.page(body, columns, "No policy yet: saveos policies set NAME --source /etc")


@policies.command(
    "show", epilog=examples("saveos policies show web", "saveos policies show web --yaml > web.yaml")
)
def show_policy(
    name: Name,
    yaml: Annotated[bool, typer.Option("--yaml", help="In the form that saveos policies apply takes.")] = False,
) -> None:
    """Show one policy. Commands and passwords are never shown."""
    if yaml:
        sys.stdout.write(as_yaml(Client().get(f"/policies/{segment(name)}")))
        return
    fields = {
        "name": "name",
        "default": lambda p: "yes" if p.get("is_default") else "no",
        "sources": "sources",
        "excludes": "excludes",
        "schedule": "schedule",
        "zone": "zone",
        "spread over": lambda p: f"{p.get('jitter_minutes')} min",
        "window": lambda p: f"{p['window_minutes']} min" if p.get("window_minutes") else "",
        "late after": lambda p: f"{p.get('grace_minutes')} min",
        "keeps": lambda p: keeps(p.get("retention") or {}),
        "compression": "compression",
        "catalogue": "catalogue",
        "drills": drills,
        "hooks": lambda p: ", ".join(f"{k} {n}" for k, n in (p.get("hooks") or {}).items() if n),
        "databases": lambda p: ", ".join(f"{d['kind']}:{d['name']}" for d in p.get("databases") or []),
        "servers": "servers",
        "version": "version",
        "hosts": "hosts",
    }
    output.fields(Client().get(f"/policies/{segment(name)}"), fields)


@policies.command(
    "set",
    epilog=examples(
        "saveos policies set web --source /etc --source /srv --schedule '30 1 * * *'",
        "saveos policies set web --keep-daily 14 --keep-monthly 12",
        "saveos policies set web --default",
        "saveos policies set web --drill-every 7 --drill-sandbox spare",
        "saveos policies set db --source /etc --database postgresql --database mariadb:wiki",
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
    schedule: Annotated[
        str, typer.Option(help="Five cron fields, or a systemd calendar such as 'Mon..Fri 02:00' or daily.")
    ] = "",
    zone: Annotated[str, typer.Option(help="Time zone of the schedule, like Europe/Paris.")] = "",
    jitter: Annotated[
        int | None, typer.Option(min=0, help="Spread the fleet's starts over so many minutes.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=0, help="Leave a run out that would begin so many minutes late; 0: never.")
    ] = None,
    databases: Annotated[
        list[str] | None,
        typer.Option(
            "--database",
            "-d",
            help="Dump it: KIND, KIND:NAME or sqlite:/FILE; may be repeated; 'none' for none.",
        ),
    ] = None,
    servers: Annotated[
        list[str] | None, typer.Option("--server", help="Storage server; repeated: a repository on each.")
    ] = None,
    keep_within: Annotated[str, typer.Option(help="Keep all of this time, like 7d.")] = "",
    keep_daily: Annotated[
        int | None, typer.Option(min=0, help="Keep the last archive of so many days.")
    ] = None,
    keep_weekly: Annotated[
        int | None, typer.Option(min=0, help="Keep the last archive of so many weeks.")
    ] = None,
    keep_monthly: Annotated[
        int | None, typer.Option(min=0, help="Keep the last archive of so many months.")
    ] = None,
    keep_yearly: Annotated[
        int | None, typer.Option(min=0, help="Keep the last archive of so many years.")
    ] = None,
    compression: Annotated[str, typer.Option(help="Borg's form, like zstd,3.")] = "",
    catalogue: Annotated[
        str,
        typer.Option(help="full, or off: names of files stay on the hosts, and those stored here are deleted."),
    ] = "",
    drill_every: Annotated[
        int | None, typer.Option(min=0, max=365, help="Drill so many days after a host's last drill; 0: never.")
    ] = None,
    drill_sample: Annotated[int | None, typer.Option(min=1, max=1000, help="Files of a drill.")] = None,
    drill_sandbox: Annotated[
        str, typer.Option(help="Another host that drills are proven on; 'none' for the host itself.")
    ] = "",
    default: Annotated[bool, typer.Option("--default", help="Use it where a host names none.")] = False,
) -> None:
    """Make a policy, or change what is named of one. Hosts follow at their next provisioning."""
    client = Client()
    found = next((p for p in client.page("/policies", None)["items"] if p["name"] == name), None)
    if not (found or sources):
        raise CommandError(
            f"There is no policy {name} yet, and a new one needs --source, such as --source /etc.",
            USAGE,
        )
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
        "zone": zone or None,
        "jitter_minutes": jitter,
        "window_minutes": window,
        "databases": [_database(text) for text in databases if text != "none"] if databases else None,
        "servers": servers,
        "retention": {**((found or {}).get("retention") or {}), **retention} if retention else None,
        "compression": compression or None,
        "catalogue": catalogue or None,
        "drill_every_days": drill_every,
        "drill_sample": drill_sample,
        "drill_sandbox": ("" if drill_sandbox == "none" else drill_sandbox) if drill_sandbox else None,
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


@policies.command(
    "apply",
    epilog=examples(
        "saveos policies apply web.yaml --dry-run", "saveos policies show web --yaml | saveos policies apply -"
    ),
)
def apply_policy(
    file: Annotated[
        Path, typer.Argument(help="A policy in YAML, as show --yaml prints it; - reads standard input.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--check", help="Print what would change (exit 3: it differs).")
    ] = False,
) -> None:
    """Make a policy, or change it to what a file says; a second time changes nothing.

    The file says the whole policy: what it leaves out is as in a new one. Commands (hooks) and passwords that
    it does not name stay as they are.
    """
    import yaml  # costs other commands nothing

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        policy = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}", USAGE) from None
    except yaml.YAMLError as error:
        raise CommandError(f"{file} is no YAML: {' '.join(str(error).split())[:300]}", USAGE) from None
    if not isinstance(policy, dict) or not policy.get("name"):
        raise CommandError(
            f"{file} must be one policy with a name: see saveos policies show NAME --yaml", USAGE
        )
    told = Client().post("/policies/apply", {"policy": policy, "dry_run": dry_run})
    if output.is_json():
        output.emit(told)
    else:
        print(output.lines(told["diff"]), end="")
        done = f"{told['outcome']}, version {told['version']}"
        print(f"{'Would be: ' if dry_run else ''}policy {told['name']} {done}")
    if dry_run and told["outcome"] != "unchanged":
        raise typer.Exit(FINDINGS)


FORM = (
    *("name", "sources", "excludes", "schedule", "zone", "jitter_minutes", "window_minutes", "grace_minutes"),
    *("retention", "compression", "upload_rate_limit", "catalogue", "drill_every_days", "drill_sample"),
    *("drill_sandbox", "databases", "servers", "overrides"),
)


def drills(policy: dict[str, Any]) -> str:
    """Return how often a policy has its hosts drilled, and where."""
    every = policy.get("drill_every_days")
    where = f" on {policy['drill_sandbox']}" if policy.get("drill_sandbox") else ""
    return f"every {every} days, {policy['drill_sample']} files{where}" if every else ""


def as_yaml(policy: dict[str, Any]) -> str:
    """Return a policy in the form that `apply` takes, with a note of what is not shown."""
    import yaml

    shown = {name: policy[name] for name in FORM}
    shown["databases"] = [
        {key: value for key, value in each.items() if value not in ("", None) and key != "has_password"}
        for each in policy["databases"]
    ]
    text = str(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110))
    hidden = [f"{number} commands {moment}" for moment, number in policy["hooks"].items() if number]
    hidden += [
        f"password of {each['kind']}:{each['name']}" for each in policy["databases"] if each["has_password"]
    ]
    return text + "".join(f"# not shown, and kept by apply: {what}\n" for what in hidden)


def _database(text: str) -> dict[str, str]:
    kind, _, name = text.partition(":")
    if kind == "sqlite":
        return {"kind": kind, "path": name}
    return {"kind": kind, "name": name or "all"}


def keeps(retention: dict[str, Any]) -> str:
    """Return a retention as "7d, 7 daily, 4 weekly"."""
    words = [str(retention["keep_within"])] if retention.get("keep_within") else []
    words += [f"{n} {key.removeprefix('keep_')}" for key, n in retention.items() if key != "keep_within" and n]
    return ", ".join(words)
