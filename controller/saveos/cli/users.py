"""Commands about the people who may use the controller."""

from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group
from saveos.cli.errors import USAGE, CommandError

users = group("People who may use the controller: viewers, operators and admins.")
Name = Annotated[str, typer.Argument(help="The user's name.")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(users, name="users")


@users.command("list", epilog=examples("saveos users list"))
def list_users(limit: Limit = 50, everything: All = False) -> None:
    """List users."""
    columns = {
        "name": "name",
        "role": "role",
        "active": lambda u: "yes" if u["active"] else "no",
        "password": lambda u: "one-time" if u["must_change_password"] else "their own",
        "last login": lambda u: output.when(u.get("last_login_at")),
        "made": lambda u: output.when(u["created_at"]),
    }
    output.page(Client().page("/users", None if everything else limit), columns, "No user.")


@users.command("add", epilog=examples("saveos users add ana", "saveos users add omar --role operator"))
def add_user(
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "viewer",
) -> None:
    """Add a user; the one-time password is shown once."""
    _show(Client().post("/users", {"name": name, "role": role}))


@users.command(
    "set",
    epilog=examples(
        "saveos users set ana --role admin", "saveos users set omar --off", "saveos users set omar --on"
    ),
)
def set_user(
    name: Name,
    role: Annotated[str, typer.Option(help="viewer, operator or admin.")] = "",
    active: Annotated[
        bool | None, typer.Option("--on/--off", help="Let them log in, or end their sessions and tokens.")
    ] = None,
) -> None:
    """Change a user's role, or whether they may log in."""
    body: dict[str, Any] = {"role": role} if role else {}
    body |= {} if active is None else {"active": active}
    if not body:
        raise CommandError("Say what to change: --role, --on or --off.", USAGE)
    _change(name, body)


@users.command("reset-password", epilog=examples("saveos users reset-password ana"))
def reset_password(name: Name) -> None:
    """Give a user a new one-time password, which is shown once; their sessions end."""
    _change(name, {"reset_password": True})


def _change(name: str, body: dict[str, Any]) -> None:
    client = Client()
    found = [user for user in client.page("/users", None)["items"] if user["name"] == name]
    if not found:
        raise CommandError(f"There is no user {name}: see saveos users list", USAGE)
    _show(client.patch(f"/users/{segment(found[0]['id'])}", body))


def _show(user: dict[str, Any]) -> None:
    if output.is_json():
        output.emit(user)
        return
    state = user["role"] if user["active"] else f"{user['role']}, switched off"
    print(f"{output.clean(user['name'])}: {state}")
    if user.get("one_time_password"):
        print(f"One-time password, shown once: {user['one_time_password']}")
