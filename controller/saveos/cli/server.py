"""Commands on the controller's own machine; each imports what it needs of the controller when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from saveos.cli import output
from saveos.cli.common import examples
from saveos.cli.errors import FINDINGS, USAGE, CommandError

Sources = Annotated[
    list[Path] | None, typer.Argument(help="What to back up (default: /etc /home).", metavar="PATH…")
]


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.command("up", epilog=examples("saveos up", "SAVEOS_LISTEN=127.0.0.1:8100 saveos up /etc /srv"))(up)
    app.command("down", epilog=examples("saveos down"))(down)
    app.command("purge", epilog=examples("saveos purge --yes"))(purge)
    app.command(
        "serve",
        epilog=examples(
            "saveos serve",
            "saveos serve --no-worker     HTTP only; `saveos worker` runs the jobs, here or on another machine",
        ),
    )(serve)
    app.command("worker", epilog=examples("saveos worker"))(worker)
    app.command("migrate", epilog=examples("saveos migrate"))(migrate)
    app.command("doctor", epilog=examples("saveos doctor", "saveos --json doctor"))(doctor)


def up(
    sources: Sources = None,
    only_check: Annotated[bool, typer.Option("--only-check", help="Only look whether it can work.")] = False,
    recovery: Annotated[
        str,
        typer.Option(
            envvar="SAVEOS_RECOVERY",
            help="`managed`: make a recovery key whose private half the controller keeps, where there is none.",
        ),
    ] = "",
) -> None:
    """Set this machine up as controller, storage server and agent; back it up; prove that it restores."""
    from saveos.cli import preflight, up

    if recovery not in ("", "managed"):
        raise CommandError(
            f"SAVEOS_RECOVERY is managed or empty, not {recovery!r}; an offline key is made by "
            "`saveos recovery init --output FILE`.",
            USAGE,
        )
    if only_check:
        preflight.check(sources or [])
    else:
        up.run(sources or [], managed_recovery=recovery == "managed")


def down() -> None:
    """Stop the controller. Hosts go on backing up by their own timers."""
    from saveos.cli import installation, preflight, process

    preflight.need_root("down")
    here = installation.current()
    stopped = process.stop(here)
    if output.is_json():
        output.emit({"stopped": stopped, "home": str(here.home)})
    else:
        print(
            "The controller is stopped; `make up` starts it again."
            if stopped
            else "The controller was not running."
        )


def purge(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove this installation from the machine: all but the repositories."""
    from saveos.cli import purge

    purge.run(yes)


def serve(
    with_worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Also run jobs in this process.")
    ] = True,
) -> None:
    """Run the controller in the foreground: API, dashboard and worker."""
    from saveos.cli import running

    running.serve(with_worker)


def worker() -> None:
    """Run jobs in a process of their own, for a controller that serves with --no-worker."""
    from saveos.cli import running

    running.work()


def migrate() -> None:
    """Bring the database to this version's schema (`serve` does it too)."""
    from saveos.cli import running

    revision = running.migrate()
    if output.is_json():
        output.emit({"revision": revision})
    else:
        print(f"The database is at {revision}.")


def doctor() -> None:
    """Look at everything the controller needs, and say how to fix what is wrong (exit 3)."""
    from saveos.cli import doctor

    found = doctor.examine()
    if output.is_json():
        output.emit({"items": [finding.__dict__ for finding in found], "next": None})
    else:
        for finding in found:
            print(f"{'ok  ' if finding.ok else 'FIX '} {finding.subject}: {finding.sentence}")
    raise typer.Exit(0 if all(finding.ok for finding in found) else FINDINGS)
