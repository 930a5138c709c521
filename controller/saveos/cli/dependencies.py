"""Commands of the operation `dependencies`: packages, libraries and their updates."""

from typing import Annotated

import typer

from saveos.cli.common import Everything, Groups, Hosts, Wait, examples, group
from saveos.cli.findings import run_operation

dependencies = group(
    "Audit and update what hosts depend on: system packages (apt, dnf), libraries of projects, and SaveOS's "
    "own programs.\n\nAn update goes to one host first, then to --batch at a time. Each host is examined "
    "afterwards: no unit may have failed, --unit must be active, --url must answer, and every program in "
    "/etc/saveos/health.d must end with 0. The first host that is not well ends the job, and the others are "
    "left alone."
)

Plan = Annotated[
    bool, typer.Option("--check", "--dry-run", help="Install nothing, show the plan (exit 3: open findings).")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Ask no advisory source (OSV, pip-audit, npm audit) about libraries.")
]
Cached = Annotated[bool, typer.Option("--no-refresh", help="Take the package lists as they are.")]
Roots = Annotated[
    list[str] | None,
    typer.Option(
        "--root", help="Look for language projects below this; may be repeated. /srv, /var/www and /opt."
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, max=1000, help="Hosts at a time, after the first one.")]
Units = Annotated[
    list[str] | None, typer.Option("--unit", help="A systemd unit that must be active; may be repeated.")
]
Url = Annotated[str, typer.Option("--url", help="An address that must answer, asked from the host.")]


def add_to(maintenance: typer.Typer) -> None:
    """Mount these commands below `saveos maintenance`; `deps` is a short name."""
    maintenance.add_typer(dependencies, name="dependencies")
    maintenance.add_typer(dependencies, name="deps", hidden=True)


@dependencies.command(
    "audit",
    epilog=examples(
        "saveos maintenance dependencies audit web1 --wait",
        "saveos maintenance dependencies audit --all --root /srv/apps --wait",
    ),
)
def audit(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    roots: Roots = None,
    offline: Offline = False,
    cached: Cached = False,
    wait: Wait = False,
) -> None:
    """Report only: pending and security updates, CVE ids, what is held, what must be started anew."""
    parameters = {"refresh": not cached, "online": not offline}
    run_operation(
        "dependencies",
        hosts,
        groups,
        everything,
        wait=wait,
        parameters=parameters | ({"roots": roots} if roots else {}),
    )


def _apply(what: str, example: str, text: str) -> None:
    def command(
        hosts: Hosts = None,
        groups: Groups = None,
        everything: Everything = False,
        check: Plan = False,
        batch: Batch = 5,
        units: Units = None,
        url: Url = "",
        cached: Cached = False,
        wait: Wait = False,
    ) -> None:
        run_operation(
            "dependencies",
            hosts,
            groups,
            everything,
            check=check,
            wait=wait,
            parameters={
                "apply": what,
                "batch": batch,
                "health_units": units or [],
                "health_url": url,
                "refresh": not cached,
            },
        )

    command.__doc__ = text
    lines = (f"{example} web1 --check --wait", f"{example} --group shop --batch 3 --unit nginx.service --wait")
    dependencies.command(example.rpartition(" ")[2], epilog=examples(*lines))(command)


_apply(
    "all",
    "saveos maintenance dependencies update",
    "Install all updates that remove nothing; held packages stay as they are.",
)
_apply(
    "security",
    "saveos maintenance dependencies security",
    "Install only updates that mend security, in the version that the security source has.",
)


@dependencies.command(
    "repair",
    epilog=examples(
        "saveos maintenance dependencies repair web1 --check --wait",
        "saveos maintenance dependencies repair web1 --wait",
    ),
)
def repair(
    hosts: Hosts = None,
    groups: Groups = None,
    everything: Everything = False,
    check: Plan = False,
    wait: Wait = False,
) -> None:
    """End an update that was interrupted (dpkg --configure -a); where none was, nothing happens."""
    run_operation(
        "dependencies",
        hosts,
        groups,
        everything,
        check=check,
        wait=wait,
        parameters={"apply": "repair"},
    )
