"""Commands about repositories: what hosts keep where, and what their servers see of it."""

from typing import Annotated, Any

import typer

from saveos.cli import guard, output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples, group

repositories = group("Where archives lie, and what storage servers see of them.")
Repository = Annotated[str, typer.Argument(help="The repository's id.", metavar="REPOSITORY")]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    guard.add_to(repositories)
    app.add_typer(repositories, name="repositories")


@repositories.command("list", epilog=examples("saveos repositories list --host web1"))
def list_repositories(
    host: Annotated[str, typer.Option("--host", help="Host, by name or id.")] = "",
    limit: Limit = 50,
    everything: All = False,
) -> None:
    """List repositories: how large they are, and when their server last saw something committed."""
    columns = {
        "id": "id",
        "host": "host",
        "server": lambda r: r.get("server") or "-",
        "size": lambda r: output.size(r.get("size")),
        "quota": lambda r: r.get("quota") or "-",
        "last commit": lambda r: output.when(r.get("last_commit_at")),
        "looked at": lambda r: output.when(r.get("checked_at")),
        "standing": _standing,
    }
    found = Client().page("/repositories", None if everything else limit, host=host)
    output.page(found, columns, "No repository yet: saveos hosts add NAME --provision")


@repositories.command("show", epilog=examples("saveos repositories show 0199a7c4-…"))
def show_repository(repository: Repository) -> None:
    """Show one repository."""
    fields = {
        "id": "id",
        "host": "host",
        "kind": "kind",
        "server": lambda r: r.get("server") or "-",
        "size": lambda r: output.size(r.get("size")),
        "quota": lambda r: r.get("quota") or "none",
        "made": lambda r: output.when(r.get("initialised_at")),
        "last commit": lambda r: output.when(r.get("last_commit_at")),
        "looked at": lambda r: output.when(r.get("checked_at")),
        "standing": _standing,
    }
    output.fields(Client().get(f"/repositories/{segment(repository)}"), fields)


@repositories.command(
    "set", epilog=examples("saveos repositories set 0199a7c4-… --quota 500G", "then provision the host")
)
def set_repository(
    repository: Repository,
    quota: Annotated[str, typer.Option(help='Most it may hold, like 500G or 2T; "" is no limit.')],
) -> None:
    """Change a repository's quota; it holds after the next provisioning of its host or server."""
    changed = Client().patch(f"/repositories/{segment(repository)}", {"quota": quota})
    if output.is_json():
        output.emit(changed)
    else:
        host = output.clean(changed["host"])
        output.say(f"The quota is {quota or 'none'} after the next: saveos maintenance provision {host}")


def _standing(repository: dict[str, Any]) -> str:
    """Return what is wrong with it by its server's word; "ok" when nothing, "-" when nobody looked."""
    if repository.get("fault"):
        return str(repository["fault"])
    if repository.get("missing_since"):
        return "lacks what the host claims"
    return "ok" if repository.get("checked_at") else "-"
