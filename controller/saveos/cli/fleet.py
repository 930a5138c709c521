"""Commands about groups of hosts."""

from typing import Annotated

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group

groups = group("Named sets of hosts.")
Name = Annotated[str, typer.Argument(help="The group's name.")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(groups, name="groups")


@groups.command("list")
def list_groups(limit: Limit = 50, everything: All = False) -> None:
    """List groups."""
    body = Client().page("/groups", None if everything else limit)
    output.page(body, {"name": "name", "hosts": "hosts"}, "No group yet: saveos groups set NAME --host HOST")


@groups.command("show")
def show_group(name: Name) -> None:
    """Show a group and its hosts."""
    client = Client()
    found = client.get(f"/groups/{segment(name)}")
    members = [host["name"] for host in client.page("/hosts", None, group=found["name"])["items"]]
    output.fields(found | {"hosts": members}, {"name": "name", "id": "id", "hosts": "hosts"})


@groups.command("set", epilog=examples("saveos groups set web --host web1 --host web2"))
def set_group(
    name: Name,
    hosts: Annotated[list[str] | None, typer.Option("--host", help="Host; may be repeated.")] = None,
) -> None:
    """Make a group, or give it exactly these hosts."""
    client = Client()
    known = any(each["name"] == name for each in client.page("/groups", None)["items"])
    body = {"hosts": hosts or []}
    found = (
        client.patch(f"/groups/{segment(name)}", body)
        if known
        else client.post("/groups", {"name": name} | body)
    )
    if output.is_json():
        output.emit(found)
    else:
        print(f"Group {name} has {found['hosts']} hosts.")


@groups.command("remove")
def remove_group(name: Name) -> None:
    """Delete a group; its hosts stay."""
    Client().delete(f"/groups/{segment(name)}")
    if output.is_json():
        output.emit({"removed": name})
    else:
        print(f"Group {name} is gone; its hosts stay.")
