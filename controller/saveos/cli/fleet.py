"""Commands about groups of hosts, and the key by which the controller reaches them."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group

groups = group("Named sets of hosts.")
Name = Annotated[str, typer.Argument(help="The group's name.")]
Members = Annotated[list[str], typer.Argument(help="Hosts, by name or id.", metavar="HOST…")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(groups, name="groups")
    app.command("ssh-key", epilog=examples("saveos ssh-key | ssh root@web1 'cat >> ~/.ssh/authorized_keys'"))(
        show_ssh_key
    )


@groups.command("list", epilog=examples("saveos groups list"))
def list_groups(limit: Limit = 50, everything: All = False) -> None:
    """List groups."""
    body = Client().page("/groups", None if everything else limit)
    output.page(body, {"name": "name", "hosts": "hosts"}, "No group yet: saveos groups set NAME --host HOST")


@groups.command("show", epilog=examples("saveos groups show web"))
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
    _tell(found)


@groups.command("rename", epilog=examples("saveos groups rename web front"))
def rename_group(name: Name, new: Annotated[str, typer.Argument(help="Its new name.")]) -> None:
    """Give a group another name; schedules and channels that name it must be changed too."""
    _tell(Client().patch(f"/groups/{segment(name)}", {"name": new}))


@groups.command("add-hosts", epilog=examples("saveos groups add-hosts web web3 web4"))
def add_hosts(name: Name, hosts: Members) -> None:
    """Put hosts into a group."""
    _tell(Client().patch(f"/groups/{segment(name)}", {"add_hosts": hosts}))


@groups.command("remove-hosts", epilog=examples("saveos groups remove-hosts web web3"))
def remove_hosts(name: Name, hosts: Members) -> None:
    """Take hosts out of a group; they stay in care."""
    _tell(Client().patch(f"/groups/{segment(name)}", {"remove_hosts": hosts}))


@groups.command("remove", epilog=examples("saveos groups remove web"))
def remove_group(name: Name) -> None:
    """Delete a group; its hosts stay."""
    Client().delete(f"/groups/{segment(name)}")
    if output.is_json():
        output.emit({"removed": name})
    else:
        print(f"Group {name} is gone; its hosts stay.")


def show_ssh_key() -> None:
    """Show the controller's public SSH key: the line that a host's authorized_keys needs."""
    found = Client().get("/ssh-key")
    if output.is_json():
        output.emit(found)
    else:
        print(found["public_key"])


def _tell(found: dict[str, Any]) -> None:
    if output.is_json():
        output.emit(found)
    else:
        print(f"Group {found['name']} has {found['hosts']} hosts.")
