"""Commands about schedules."""

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Everything, Groups, Limit, Wait, examples, group, targets
from saveos.cli.errors import FINDINGS, USAGE, CommandError
from saveos.cli.jobs import accepted

schedules = group("When operations run by themselves, and what became of each time.")
Name = Annotated[str, typer.Argument(help="The schedule's name or id.", metavar="SCHEDULE")]
Zone = Annotated[str, typer.Option("--zone", "-z", help="Time zone of the clock, like Europe/Paris.")]
HostList = Annotated[list[str] | None, typer.Option("--host", help="Host; may be repeated.")]
Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", help="The operation's own, as NAME=VALUE; may be repeated."),
]
CatchUp = Annotated[
    bool | None,
    typer.Option("--catch-up/--no-catch-up", help="Run once for what a stopped controller missed."),
]
On = Annotated[bool | None, typer.Option("--on/--off", help="Switch it on or off.")]
CheckMode = Annotated[
    bool | None, typer.Option("--check/--run", help="Only show what would change, or really do it.")
]
Jitter = Annotated[str, typer.Option(help="Start up to so much later, like 90s, 10m or 2h.")]
FORM = (
    *("name", "operation", "targets", "parameters", "mode"),
    *("cron", "zone", "jitter_seconds", "enabled", "catch_up"),
)
UNITS = {"s": 1, "m": 60, "h": 3600}


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(schedules, name="schedules")


@schedules.command("list", epilog=examples("saveos schedules list"))
def list_schedules(
    limit: Limit = 50,
    everything: All = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="All but SaveOS's own, in the form that apply takes.")
    ] = False,
) -> None:
    """List schedules, with their next time and what became of the last one."""
    if as_yaml:
        _print_yaml(Client().page("/schedules", None)["items"])
        return
    columns = {
        "name": "name",
        "operation": lambda s: s["operation"] + (" (check)" if s["mode"] == "check" else ""),
        "targets": lambda s: _targets(s["targets"]),
        "when": lambda s: f"{s['cron']} {s['zone']}",
        "on": lambda s: "yes" if s["enabled"] else "no",
        "next": lambda s: output.when(s["next_at"]),
        "last": lambda s: f"{output.when(s['last_at'])} {s['last_job_state']}".strip(),
    }
    body = Client().page("/schedules", None if everything else limit)
    output.page(body, columns, "No schedule yet: saveos schedules add NAME OPERATION --all --cron '0 2 * * *'")


@schedules.command("show", epilog=examples("saveos schedules show drift"))
def show_schedule(name: Name) -> None:
    """Show one schedule."""
    _show(Client().get(f"/schedules/{segment(name)}"))


@schedules.command(
    "add",
    epilog=examples(
        "saveos schedules add nightly provision --all --cron '30 1 * * *' --zone Europe/Paris --check",
        "saveos schedules add offsite backup --group web --cron 'Mon..Fri *-*-* 12:00' --jitter 10m --catch-up",
    ),
)
def add_schedule(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    operation: Annotated[str, typer.Argument(help="provision, backup, health, …")],
    cron: Annotated[str, typer.Option(help="Five fields, or a systemd calendar expression.")],
    zone: Zone = "UTC",
    hosts: HostList = None,
    groups: Groups = None,
    everything: Everything = False,
    parameters: Parameters = None,
    jitter: Jitter = "",
    catch_up: CatchUp = False,
    check: CheckMode = False,
    on: On = True,
) -> None:
    """Let an operation run by itself, on whatever the targets are at each time."""
    body = {
        "name": name,
        "operation": operation,
        "cron": cron,
        "zone": zone,
        "targets": targets(hosts, groups, everything),
        "parameters": read_parameters(parameters),
        "jitter_seconds": _seconds(jitter),
        "catch_up": bool(catch_up),
        "mode": "check" if check else "run",
        "enabled": bool(on),
    }
    made = Client().post("/schedules", body)
    if output.is_json():
        output.emit(made)
    else:
        print(f"{name} runs {operation} next at {output.when(made['next_at'])}.")


@schedules.command(
    "set",
    epilog=examples(
        "saveos schedules set nightly --cron '0 3 * * *'",
        "saveos schedules set 'health hourly' --off",
    ),
)
def set_schedule(
    name: Name,
    operation: Annotated[str, typer.Option(help="provision, backup, health, …")] = "",
    cron: Annotated[str, typer.Option(help="Five fields, or a systemd calendar expression.")] = "",
    zone: Zone = "",
    hosts: HostList = None,
    groups: Groups = None,
    everything: Everything = False,
    parameters: Parameters = None,
    jitter: Jitter = "",
    catch_up: CatchUp = None,
    check: CheckMode = None,
    on: On = None,
    rename: Annotated[str, typer.Option("--rename", help="Another name.")] = "",
) -> None:
    """Change what is named of a schedule. It counts from now: times that passed are not caught up."""
    body: dict[str, Any] = {"operation": operation or None, "cron": cron or None, "zone": zone or None}
    body |= {"name": rename or None, "catch_up": catch_up, "enabled": on}
    body["targets"] = targets(hosts, groups, everything) if hosts or groups or everything else None
    body["parameters"] = read_parameters(parameters) if parameters else None
    body["jitter_seconds"] = _seconds(jitter) if jitter else None
    body["mode"] = None if check is None else "check" if check else "run"
    body = {key: value for key, value in body.items() if value is not None}
    if not body:
        raise CommandError("Say what to change, like --cron '0 3 * * *' or --off.", USAGE)
    _show(Client().patch(f"/schedules/{segment(name)}", body))


@schedules.command(
    "apply",
    epilog=examples(
        "saveos schedules list --yaml > schedules.yaml",
        "saveos schedules apply schedules.yaml --dry-run",
        "saveos schedules apply schedules.yaml --prune",
    ),
)
def apply_schedules(
    file: Annotated[
        Path,
        typer.Argument(help="A list of schedules in YAML, as list --yaml prints it; - reads standard input."),
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete schedules that the file does not name; SaveOS's own stay.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "--check", help="Print what would change (exit 3: something would).")
    ] = False,
) -> None:
    """Make schedules what a file says, all or none; a second time changes nothing.

    The file says all of a schedule: what it leaves out is as in a new one.
    """
    import yaml  # costs other commands nothing

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        found = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file} cannot be read: {error}", USAGE) from None
    except yaml.YAMLError as error:
        raise CommandError(f"{file} is no YAML: {' '.join(str(error).split())[:300]}", USAGE) from None
    if not isinstance(found, list):
        raise CommandError(f"{file} must be a list of schedules: see saveos schedules list --yaml", USAGE)
    told = Client().post("/schedules/apply", {"schedules": found, "prune": prune, "dry_run": dry_run})
    if output.is_json():
        output.emit(told)
    else:
        for each in told:
            what = f": {', '.join(each['changed'])}" if each["changed"] else ""
            print(f"{'would be ' if dry_run else ''}{each['outcome']}  {each['name']}{what}")
    if dry_run and any(each["outcome"] != "unchanged" for each in told):
        raise typer.Exit(FINDINGS)


@schedules.command("remove", epilog=examples("saveos schedules remove drift"))
def remove_schedule(name: Name) -> None:
    """Delete a schedule and its history; its jobs stay."""
    Client().delete(f"/schedules/{segment(name)}")
    if output.is_json():
        output.emit({"removed": name})
    else:
        print(f"{name} is removed.")


@schedules.command("run", epilog=examples("saveos schedules run nightly --wait"))
def run_schedule(name: Name, wait: Wait = False) -> None:
    """Start its operation now; its next time stays."""
    client = Client()
    accepted(client, client.post(f"/schedules/{segment(name)}/run"), wait)


@schedules.command("history", epilog=examples("saveos schedules history nightly --outcome skipped"))
def show_history(
    name: Name,
    outcome: Annotated[str, typer.Option(help="Only started, skipped or failed.")] = "",
    limit: Limit = 20,
    everything: All = False,
) -> None:
    """List what became of each time at which it was due, the newest first."""
    columns = {
        "due": lambda r: output.when(r["due_at"]),
        "outcome": lambda r: r["outcome"] + (f" ×{r['count']}" if r["count"] > 1 else ""),
        "at": lambda r: output.when(r["fired_at"]),
        "job": "job_id",
        "why": "reason",
    }
    path = f"/schedules/{segment(name)}/history"
    body = Client().page(path, None if everything else limit, outcome=outcome)
    output.page(body, columns, "It was not due yet.")


@schedules.command(
    "preview", epilog=examples("saveos schedules preview '30 2 * * *' --zone Europe/Paris --count 5")
)
def preview_schedule(
    cron: Annotated[str, typer.Argument(help="Five fields, or a systemd calendar expression.")],
    zone: Zone = "UTC",
    count: Annotated[int, typer.Option(min=1, max=100, help="How many times.")] = 10,
) -> None:
    """Show when an expression fires, on the zone's clock, in UTC and here."""
    found = Client().get("/schedules/preview", cron=cron, zone=zone, count=count)
    if output.is_json():
        output.emit(found)
        return
    rows = zip(found["local"], found["runs"], strict=True)
    output.table([found["zone"], "utc", "here"], [[local, utc, output.when(utc)] for local, utc in rows])


def _print_yaml(found: list[dict[str, Any]]) -> None:
    import yaml

    shown = [{name: each[name] for name in FORM} for each in found if not each["built_in"]]
    sys.stdout.write(str(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=110)))


def _show(schedule: dict[str, Any]) -> None:
    fields = {
        "name": "name",
        "id": "id",
        "operation": lambda s: s["operation"] + (" (check)" if s["mode"] == "check" else ""),
        "targets": lambda s: _targets(s["targets"]),
        "parameters": lambda s: [f"{key}={value}" for key, value in s["parameters"].items()],
        "when": lambda s: f"{s['cron']} {s['zone']}",
        "jitter": lambda s: f"{s['jitter_seconds']} s",
        "catches up": lambda s: "yes" if s["catch_up"] else "no",
        "on": lambda s: "yes" if s["enabled"] else "no",
        "next": lambda s: output.when(s["next_at"]),
        "last": lambda s: f"{output.when(s['last_at'])} {s['last_job_state']}".strip(),
        "last time": lambda s: f"{s['last_outcome'] or '-'} {s['last_reason']}".strip(),
        "made by": "created_by",
    }
    output.fields(schedule, fields)


def _targets(found: dict[str, Any]) -> str:
    if found.get("all"):
        return "all"
    return ", ".join([*found.get("hosts", []), *(f"@{name}" for name in found.get("groups", []))])


def read_parameters(words: list[str] | None) -> dict[str, Any]:
    """Return NAME=VALUE words as parameters; a value that is JSON is taken as such."""
    found: dict[str, Any] = {}
    for word in words or []:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise CommandError(f"--parameter takes NAME=VALUE; {word!r} has no '='.", USAGE)
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d{1,5})([smh]?)", text.strip() or "0")
    if not match:
        raise CommandError("--jitter takes a length like 90s, 10m or 2h.", USAGE)
    return int(match.group(1)) * UNITS[match.group(2) or "s"]
