"""Commands about groups of hosts."""

import typer

from saveos.cli import output
from saveos.cli.client import Client
from saveos.cli.common import All, Limit, group

groups = group("Named sets of hosts.")


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(groups, name="groups")


@groups.command("list")
def list_groups(limit: Limit = 50, everything: All = False) -> None:
    """List groups."""
    body = Client().page("/groups", None if everything else limit)
    columns = {"name": "name", "hosts": lambda g: g.get("hosts")}
    output.page(body, columns, "No group yet: saveos groups set NAME --host HOST")
