"""Commands of the operation `validation`: is a host set up as it must be, and mend what is safe."""

from typing import Annotated, Any

import typer

from saveos.cli.common import Everything, Groups, Hosts, Wait, examples, group
from saveos.cli.findings import run_operation

validation = group(
    "See whether hosts are set up as they must be: configuration, set-up, compose files.\n\n"
    "Nothing is changed unless --fix names what to mend: one's id (secret-permissions), its id and subject "
    "(env-permissions:/srv/app/.env), or all. What a fix changes is kept on the host below "
    "/var/lib/saveos-maintenance/validation; --check shows the difference and changes nothing."
)

Fix = Annotated[list[str] | None, typer.Option("--fix", help="Mend this finding, or all; may be repeated.")]
Check = Annotated[
    bool, typer.Option("--check", "--dry-run", help="Change nothing; with --fix show what it would change.")
]
Roots = Annotated[
    list[str] | None,
    typer.Option("--root", help="Look for compose files below this; may be repeated. /srv, /var/www and /opt."),
]
Names = Annotated[
    list[str] | None, typer.Option("--name", help="A name that hosts must resolve; may be repeated.")
]
Certificates = Annotated[
    list[str] | None,
    typer.Option("--certificate", help="A file or directory of certificates. /etc/letsencrypt/live."),
]


def add_to(maintenance: typer.Typer) -> None:
    """Mount these commands below `saveos maintenance`; `validate` is another name."""
    maintenance.add_typer(validation, name="validation")
    maintenance.add_typer(validation, name="validate", hidden=True)


def _command(name: str, kinds: list[str], text: str) -> None:
    def command(
        hosts: Hosts = None,
        groups: Groups = None,
        everything: Everything = False,
        fixes: Fix = None,
        check: Check = False,
        roots: Roots = None,
        names: Names = None,
        certificates: Certificates = None,
        wait: Wait = False,
    ) -> None:
        parameters: dict[str, Any] = {"kinds": kinds, "fixes": fixes or []}
        chosen = {"roots": roots, "names": names, "certificates": certificates}
        parameters |= {key: value for key, value in chosen.items() if value}
        run_operation(
            "validation",
            hosts,
            groups,
            everything,
            check=check,
            wait=wait,
            parameters=parameters,
        )

    command.__doc__ = text
    example = f"saveos maintenance validation {name}"
    lines = [f"{example} web1 --wait", f"{example} --all --fix all --check --wait"]
    validation.command(name, epilog=examples(*lines))(command)


_command("all", ["config", "setup", "compose"], "Check everything that there is to check.")
_command(
    "config",
    ["config"],
    "Check the backup's configuration: its schema, sources, hooks, excludes and retention.",
)
_command(
    "setup",
    ["setup"],
    "Check the set-up: repository, passphrase, escrow, timers, secrets, disks, clock, names, certificates.",
)
_command(
    "compose",
    ["compose"],
    "Check compose and environment files: form, missing variables and files, default passwords.",
)
