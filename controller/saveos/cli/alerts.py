"""Commands about alerts and the channels they are told to."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group, length
from saveos.cli.errors import FAILED, USAGE, CommandError

alerts = group("What needs a person: hosts that are late, failing or silent.")
channels = group("Where alerts are told: webhooks, mail, ntfy and others.")
Alert = Annotated[str, typer.Argument(help="The alert's id.", metavar="ALERT")]
Channel = Annotated[str, typer.Argument(help="The channel's name or id.", metavar="CHANNEL")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(alerts, name="alerts")
    app.add_typer(channels, name="channels")


@alerts.command("list", epilog=examples("saveos alerts list --state open"))
def list_alerts(
    state: Annotated[
        str, typer.Option(help="open, acknowledged, muted, resolved or all (else all but resolved).")
    ] = "",
    rule: Annotated[str, typer.Option(help="Only of this rule, like overdue.")] = "",
    host: Annotated[str, typer.Option(help="Only of this host.")] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List alerts, newest first."""
    columns = {
        "id": "id",
        "severity": "severity",
        "state": "state",
        "host": lambda a: a.get("host") or a["object"],
        "what": "title",
        "since": lambda a: output.when(a["since"]),
        "seen": "count",
    }
    body = Client().page("/alerts", None if everything else limit, state=state, rule=rule, host=host)
    output.page(body, columns, "All quiet.")


@alerts.command("show", epilog=examples("saveos alerts show 0199a7c4-…"))
def show_alert(alert: Alert) -> None:
    """Show one alert."""
    _show(Client().get(f"/alerts/{segment(alert)}"))


@alerts.command("ack", epilog=examples("saveos alerts ack 0199a7c4-…"))
def acknowledge_alert(alert: Alert) -> None:
    """Say that you take care of it."""
    _show(Client().post(f"/alerts/{segment(alert)}/acknowledge"))


@alerts.command("mute", epilog=examples("saveos alerts mute ALERT --for 8h", "saveos alerts mute ALERT --off"))
def mute_alert(
    alert: Alert,
    length: Annotated[str, typer.Option("--for", help="How long, like 30m, 8h, 7d or 2w.")] = "1d",
    off: Annotated[bool, typer.Option("--off", help="Unmute it.")] = False,
) -> None:
    """Tell nothing of it for a while; it opens again if its cause still holds then."""
    path = f"/alerts/{segment(alert)}"
    if off:
        _show(Client().post(f"{path}/unmute"))
        return
    until = datetime.now(UTC) + _length(length)
    _show(Client().post(f"{path}/mute", {"until": until.isoformat()}))


@channels.command("list", epilog=examples("saveos channels list"))
def list_channels(limit: Limit = 50, everything: All = False) -> None:
    """List channels (never their whole URLs)."""
    columns = {
        "name": "name",
        "address": "address",
        "on": lambda c: "yes" if c["enabled"] else "no",
        "rules": lambda c: c["rules"] or "all",
        "severities": lambda c: c["severities"] or "all",
        "groups": lambda c: c["groups"] or "all",
        "last": lambda c: f"{c['last_state']} {output.when(c['last_at'])}" if c["last_state"] else "-",
    }
    body = Client().page("/channels", None if everything else limit)
    output.page(body, columns, "No channel yet: saveos channels add NAME URL")


@channels.command(
    "add",
    epilog=examples(
        "saveos channels add ops https://hooks.example.net/saveos",
        "saveos channels add phone ntfys://ntfy.example.net/saveos --severity critical",
        "saveos channels add mail 'mailtos://user:password@mail.example.net?to=ops@example.net' --group web",
        "saveos channels add ops - < url-with-a-token",
    ),
)
def add_channel(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="A webhook, or any Apprise URL; - reads it from standard input.")],
    rules: Annotated[
        list[str] | None, typer.Option("--rule", "-r", help="Only this rule; may be repeated.")
    ] = None,
    severities: Annotated[
        list[str] | None,
        typer.Option("--severity", "-s", help="Only critical, warning or info; may be repeated."),
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option("--group", "-g", help="Only hosts of this group; may be repeated.")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--no-resolved", help="Do not tell when an alert is resolved.")
    ] = False,
) -> None:
    """Tell alerts there too."""
    body: dict[str, Any] = {
        "name": name,
        "url": typer.get_text_stream("stdin").readline().strip() if url == "-" else url,
        "rules": rules or [],
        "severities": severities or [],
        "groups": groups or [],
        "tell_resolved": not quiet,
    }
    made = Client().post("/channels", body)
    if output.is_json():
        output.emit(made)
    else:
        print(f"Alerts are told to {output.clean(made['address'])} now. Try it: saveos channels test {name}")


@channels.command("test", epilog=examples("saveos channels test ops"))
def test_channel(channel: Channel) -> None:
    """Send a test message there, now (exit 1: it was not taken)."""
    sent = Client().post(f"/channels/{segment(channel)}/test")
    if output.is_json():
        output.emit(sent)
    if sent["state"] != "delivered":
        raise CommandError(f"{channel} did not take the message: {output.clean(sent['error'])}", FAILED)
    output.say(f"{channel} took the message.")


@channels.command("remove", epilog=examples("saveos channels remove ops"))
def remove_channel(channel: Channel) -> None:
    """Tell alerts there no more; its delivery log goes too."""
    Client().delete(f"/channels/{segment(channel)}")
    if output.is_json():
        output.emit({"removed": channel})
    else:
        print(f"{channel} is removed.")


def _show(alert: dict[str, Any]) -> None:
    output.fields(
        alert,
        {
            "id": "id",
            "what": "title",
            "severity": "severity",
            "state": "state",
            "says": "summary",
            "since": lambda a: output.when(a["since"]),
            "first seen": lambda a: output.when(a["first_seen"]),
            "last seen": lambda a: output.when(a["last_seen"]),
            "seen": "count",
            "muted until": lambda a: output.when(a["muted_until"]),
            "acknowledged": lambda a: f"{output.when(a['acknowledged_at'])} {a['acknowledged_by']}".strip(),
            "resolved": lambda a: output.when(a["resolved_at"]),
        },
    )


def _length(text: str) -> timedelta:
    found = length(text)
    if found is None:
        raise CommandError("--for takes a length like 30m, 8h, 7d or 2w.", USAGE)
    return found
