"""Commands about versions of policies: list, compare, go back."""

from typing import Annotated

import typer

from saveos.cli import output
from saveos.cli.client import Client, segment
from saveos.cli.common import All, Limit, examples

Name = Annotated[str, typer.Argument(help="The policy's name.")]


def add_version_commands(policies: typer.Typer) -> None:
    """Mount these commands below `policies`."""
    policies.command("versions", epilog=examples("saveos policies versions web"))(versions)
    policies.command(
        "diff", epilog=examples("saveos policies diff web 3 5", "saveos policies diff web 3 5 --json")
    )(diff)
    policies.command("rollback", epilog=examples("saveos policies rollback web 3"))(rollback)


def versions(name: Name, limit: Limit = 50, everything: All = False) -> None:
    """List a policy's versions, newest first: every change made one."""
    columns = {
        "version": "number",
        "since": lambda v: output.when(v.get("created_at")),
        "by": "created_by",
        "note": "note",
    }
    body = Client().page(f"/policies/{segment(name)}/versions", None if everything else limit)
    output.page(body, columns, f"Policy {name} has no version yet: its next change makes the first.")


def diff(
    name: Name,
    before: Annotated[int, typer.Argument(min=1, help="The older version.")],
    after: Annotated[int, typer.Argument(min=1, help="The newer one.")],
) -> None:
    """Show what differs between two versions. Of commands and passwords only that they differ."""
    told = Client().get(f"/policies/{segment(name)}/versions/{before}/diff/{after}")
    if output.is_json():
        output.emit(told)
        return
    print(output.lines(told["diff"]), end="")
    for change in told["changes"]:
        if "hidden" in str(change["after"]):
            print(f"{change['field']}: {change['after']}")
    if not told["changes"]:
        print("They are the same.")


def rollback(
    name: Name,
    version: Annotated[int, typer.Argument(min=1, help="The version to go back to.")],
    note: Annotated[str, typer.Option(help="Why, for whoever reads the versions.")] = "",
) -> None:
    """Make a policy what it was in a version; that is a new version, commands and passwords included."""
    policy = Client().post(f"/policies/{segment(name)}/rollback", {"version": version, "note": note})
    if output.is_json():
        output.emit(policy)
    else:
        print(f"Policy {name} is as in version {version} again, now version {policy['version']}.")
        print("Hosts follow with: saveos maintenance provision --all --wait")
