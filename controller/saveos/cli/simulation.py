"""The command that tries a retention on the archives there are."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.errors import FINDINGS

Count = typer.Option(min=0, max=10_000, help="Keep the last archive of so many of these.")
RULES = ("keep_within", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly")


def simulate(
    name: Annotated[str, typer.Argument(help="The policy's name.")],
    host: Annotated[
        list[str] | None, typer.Option("--host", help="Only of this host; may be repeated.")
    ] = None,
    keep_within: Annotated[str, typer.Option(help="Keep all of this time, as 7d or 36H.")] = "",
    keep_hourly: Annotated[int | None, Count] = None,
    keep_daily: Annotated[int | None, Count] = None,
    keep_weekly: Annotated[int | None, Count] = None,
    keep_monthly: Annotated[int | None, Count] = None,
    keep_yearly: Annotated[int | None, Count] = None,
    days: Annotated[int, typer.Option(min=0, max=800, help="Look so far ahead, with backups going on.")] = 0,
) -> None:
    """Show which archives a retention would keep or prune; the options replace the policy's own rules.

    Changes nothing. Ends with 3 when it would prune archives that the policy as it is keeps.
    """
    client = Client()
    given = (keep_within, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly)
    changed = {rule: value for rule, value in zip(RULES, given, strict=True) if value not in (None, "")}
    body: dict[str, Any] = {"hosts": host or [], "days": days}
    if changed:
        known = client.get(f"/policies/{segment(name)}")["retention"]
        body["retention"] = {rule: known[rule] for rule in RULES if known.get(rule) is not None} | changed
    found = _all(client, f"/policies/{segment(name)}/simulate?limit=100", body)
    if output.is_json():
        output.emit(found)
    else:
        _show(found)
    if found["totals"]["newly_pruned"]:
        raise typer.Exit(FINDINGS)


def _all(client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return all pages as one, with their sums."""
    found: dict[str, Any] = client.post(path, body)
    while found["next"]:
        page = client.post(f"{path}&cursor={found['next']}", body)
        found["items"] += page["items"]
        found["totals"] = {key: value + page["totals"][key] for key, value in found["totals"].items()}
        found["next"] = page["next"]
    return found


def _show(found: dict[str, Any]) -> None:
    rows = [
        [
            output.clean(item["host"]),
            output.clean(fate["name"]),
            output.when(fate["started_at"]),
            output.size(fate["size"]),
            fate["kept_by"] or ("PRUNED, kept until now" if fate["kept_before"] else "pruned"),
            output.when(fate["expires_at"]) if fate["expires_at"] else "",
        ]
        for item in found["items"]
        for fate in item["archives"]
    ]
    output.table(["host", "archive", "made", "added", "kept by", "goes"], rows)
    sums = found["totals"]
    print(
        f"{sums['archives']} archives: {sums['kept']} kept, {sums['pruned']} pruned, "
        f"{sums['newly_pruned']} of them kept by the policy as it is."
    )
