"""Commands about API tokens."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group

tokens = group("Tokens for pipelines and programs.")


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(tokens, name="tokens")


@tokens.command(
    "create", epilog=examples("saveos tokens create ci --right jobs:read --right jobs:write --days 90")
)
def create_token(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    rights: Annotated[
        list[str] | None,
        typer.Option("--right", "-r", help="A right like jobs:write; may be repeated (else all yours)."),
    ] = None,
    days: Annotated[int, typer.Option("--days", min=0, help="Days until it ends; 0 is never.")] = 0,
) -> None:
    """Make a token. It is shown once."""
    body: dict[str, Any] = {"name": name, "scopes": rights or ["*"]}
    if days:
        body["expires_in_days"] = days
    made = Client().post("/tokens", body)
    if output.is_json():
        output.emit(made)
    else:
        print(made["token"])


@tokens.command("list", epilog=examples("saveos tokens list"))
def list_tokens(limit: Limit = 50, everything: All = False) -> None:
    """List tokens (never the tokens themselves)."""
    columns = {
        "id": "id",
        "name": "name",
        "kind": "kind",
        "scopes": "scopes",
        "made": lambda t: output.when(t["created_at"]),
        "last used": lambda t: output.when(t.get("last_used_at")),
        "ends": lambda t: output.when(t.get("expires_at")),
    }
    output.page(Client().page("/tokens", None if everything else limit), columns, "No token.")


@tokens.command("rotate", epilog=examples("saveos tokens rotate 0199a7c4-… --overlap 24"))
def rotate_token(
    token: Annotated[str, typer.Argument(help="The token's id.", metavar="ID")],
    overlap: Annotated[
        int, typer.Option("--overlap", min=0, max=720, help="Hours that the old one still counts.")
    ] = 24,
) -> None:
    """Make a successor of a token of yours, with the same rights. It is shown once; the old one then ends."""
    made = Client().post(f"/tokens/{segment(token)}/rotate", {"overlap_hours": overlap})
    if output.is_json():
        output.emit(made)
    else:
        print(made["token"])


@tokens.command("revoke", epilog=examples("saveos tokens revoke 0199a7c4-…"))
def revoke_token(token: Annotated[str, typer.Argument(help="The token's id.", metavar="ID")]) -> None:
    """Make a token useless, now."""
    Client().delete(f"/tokens/{segment(token)}")
    if output.is_json():
        output.emit({"revoked": token})
    else:
        print(f"{token} is revoked.")
