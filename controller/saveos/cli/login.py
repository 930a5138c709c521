"""Commands that store and forget a login."""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from saveos.cli import output
from saveos.cli.client import Client, Login, fetch_ca, login_files, stored_ca, write_login
from saveos.cli.common import examples
from saveos.cli.errors import FAILED, REFUSED, USAGE, CommandError


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.command(
        "login",
        epilog=examples(
            "saveos login --url https://backup.example.org",
            "saveos login --url https://backup.example.org --token - < token",
            "saveos login --url https://10.0.0.5:8000 --ca-pin 3f1c…   the pin that `saveos tls show` prints",
        ),
    )(login)
    app.command("logout", epilog=examples("saveos logout"))(logout)


def login(
    url: Annotated[str, typer.Option(help="Address of the controller.")] = "",
    name: Annotated[str, typer.Option("--name", help="Your user name.")] = "admin",
    token: Annotated[str, typer.Option("--token", help="- reads an API token from standard input.")] = "",
    ca_pin: Annotated[
        str,
        typer.Option("--ca-pin", help="SHA-256 of the controller's own CA; from now on only it is trusted."),
    ] = "",
) -> None:
    """Log in, and store a token of your own that only you can read.

    A controller that uses its own CA is trusted by the CA's pin, which `saveos tls show` prints on its machine.
    """
    url = (url or os.environ.get("SAVEOS_URL") or _stored_url()).rstrip("/")
    ca = fetch_ca(url, ca_pin) if ca_pin else stored_ca(url)
    if token not in ("", "-"):
        raise CommandError(
            "A token on the command line is seen by others: use `--token -` and standard input.", USAGE
        )
    if token:
        secret = sys.stdin.read().strip()
        user = Client(Login(url, secret, "standard input", ca)).get("/auth/me")
    else:
        password = _password()
        client = Client(Login(url, "", "the command line", ca))
        user = client.post("/auth/login", {"name": name, "password": password}, headers={"Origin": url})
        if user["user"].get("must_change_password"):
            change = {"current": password, "new": _new_password()}
            client.post("/auth/password", change, headers={"Origin": url})
        label = f"saveos command on {socket.gethostname()}"
        made = client.post("/tokens", {"name": label, "scopes": ["*"]}, headers={"Origin": url})
        secret = made["token"]
        client.post("/auth/logout", headers={"Origin": url})
    path = _writable()
    write_login(path, url, secret, ca)
    if output.is_json():
        output.emit({"url": url, "file": str(path), "user": user.get("user", user)})
    else:
        print(f"Logged in at {url}; the token is in {path}.")


def logout() -> None:
    """Forget the stored login of this user; its token counts until it is revoked."""
    removed = []
    for path in login_files():
        if path.is_file() and os.access(path.parent, os.W_OK):
            path.unlink()
            removed.append(str(path))
    if output.is_json():
        output.emit({"removed": removed})
    else:
        print(f"Removed {', '.join(removed)}." if removed else "There was no stored login.")
        if removed:
            print("Its token still counts at the controller: revoke it there in the settings, or log in again")
            print("and run: saveos tokens list, saveos tokens revoke ID")


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt("Password", hide_input=True, err=True))


def _new_password() -> str:
    if not sys.stdin.isatty():
        raise CommandError(
            "This is a one-time password: choose your own first, in the dashboard or a terminal.", REFUSED
        )
    return str(typer.prompt("Your new password", hide_input=True, confirmation_prompt=True, err=True))


def _stored_url() -> str:
    from saveos.cli.client import read_login

    try:
        return read_login().url
    except CommandError:
        return "http://127.0.0.1:8000"


def _writable() -> Path:
    for path in login_files():
        if os.access(path.parent, os.W_OK) or (not path.parent.exists() and path.parent.parent == Path.home()):
            return path
    fallback = login_files()[-1]
    try:
        fallback.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"The login cannot be stored in {fallback}: {error}.", FAILED) from error
    return fallback
