"""Commands about the controller itself, on its own machine: its backup, its old logs, its key."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saveos.cli import output
from saveos.cli.common import examples, group
from saveos.cli.errors import CommandError

if TYPE_CHECKING:
    from saveos.core.settings import Settings

controller = group(
    "The controller itself, on its own machine and as its user: export and restore it, forget old logs, "
    "give it a new key."
)


def add_to(app: typer.Typer) -> None:
    """Mount these commands."""
    app.add_typer(controller, name="controller")


def _settings() -> "Settings":
    """Return the settings of the controller on this machine. Raises CommandError when there is none."""
    from saveos.cli.running import private_settings

    settings = private_settings()
    if not settings.home.is_dir():
        raise CommandError(
            f"There is no controller in {settings.home}: run this on its machine, or name its home "
            "in SAVEOS_HOME."
        )
    return settings


@controller.command(
    "export",
    epilog=examples("saveos controller export", "saveos controller export --output /mnt/stick/controller"),
)
def export_controller(
    target: Annotated[
        Path | None,
        typer.Option("--output", help="Directory to make or replace (default: export/ in its home)."),
    ] = None,
    without_catalogue: Annotated[
        bool, typer.Option("--no-catalogue", help="Leave the index of files out; hosts send it anew.")
    ] = False,
) -> None:
    """Write all that a new machine needs to go on, while the controller runs: database, catalogue, keys."""
    from saveos.upkeep.daily import spool
    from saveos.upkeep.export import ExportError, export

    settings = _settings()
    place = target or spool(settings)
    try:
        manifest = export(settings, place, catalogue=not without_catalogue)
    except (ExportError, OSError) as error:
        raise CommandError(f"{error}.") from error
    told = {"directory": str(place), "at": manifest.at, "keys": manifest.keys, "files": len(manifest.files)}
    if output.is_json():
        output.emit(told | {"recovery_key": manifest.recovery_key})
        return
    print(f"{place} holds the controller as of {output.when(manifest.at)}: {len(manifest.files)} files.")
    if manifest.keys == "sealed":
        print(f"Its keys are sealed to the recovery key {manifest.recovery_key[:16]}.")
    else:
        print(
            "Its keys are in it, readable by whoever reads it: there is no offline recovery key. Keep it like "
            "a password, or run: saveos recovery init --output FILE"
        )


@controller.command(
    "restore",
    epilog=examples(
        "saveos controller restore /mnt/restored/var/lib/saveos/export --key saveos-recovery.key",
        "SAVEOS_HOME=/srv/saveos-new saveos controller restore export",
    ),
)
def restore_controller(
    source: Annotated[Path, typer.Argument(help="An export's directory.", metavar="DIRECTORY")],
    key: Annotated[Path | None, typer.Option(help="File with the recovery key's private half.")] = None,
) -> None:
    """Bring an exported controller back on a new machine, into an empty home.

    Every token and session of the export is void, so that what was revoked since stays revoked; hosts get their
    tokens again when they are provisioned.
    """
    from saveos.cli.running import private_settings
    from saveos.upkeep.export import ExportError, restore

    settings = private_settings()
    try:
        manifest = restore(settings, source, key.read_text() if key else "")
    except (ExportError, OSError) as error:
        raise CommandError(f"{error}.") from error
    if output.is_json():
        output.emit({"home": str(settings.home), "at": manifest.at, "version": manifest.version})
        return
    print(f"{settings.home} holds the controller as of {output.when(manifest.at)}. Now:")
    print("  saveos up (or saveos serve), saveos login")
    print("  saveos maintenance provision --all --wait     hosts get their tokens again")
    print("  review users, and hosts taken out since: saveos hosts list")


@controller.command("clean", epilog=examples("saveos controller clean --dry-run", "saveos controller clean"))
def clean_controller(
    dry_run: Annotated[bool, typer.Option("--dry-run", "--check", help="Forget nothing, count.")] = False,
) -> None:
    """Forget logs, jobs, notifications and audit older than SAVEOS_KEEP_*_DAYS; a worker does it daily."""
    from saveos.core.database import Database
    from saveos.core.security import load_kek
    from saveos.upkeep.clean import clean, rules

    settings = _settings()
    database = Database(settings.sqlalchemy_url, load_kek(settings.home))
    try:
        counts = clean(settings, database, check=dry_run)
    finally:
        database.close()
    if output.is_json():
        output.emit({"forgotten": counts, "dry_run": dry_run})
        return
    for rule in rules(settings):
        verb = "would go" if dry_run else "gone"
        print(f"{counts[rule.name]:>9}  {verb}: {rule.what} older than {rule.days} days")


@controller.command("rotate-key", epilog=examples("saveos down; saveos controller rotate-key; saveos up"))
def rotate_installation_key() -> None:
    """Give the stopped controller a new installation key; what is sealed in its database stays as it is."""
    from saveos.cli import installation, process
    from saveos.upkeep.keys import RotationError, rotate_key

    settings = _settings()
    if process.running(installation.current()):
        raise CommandError("The controller runs: stop it first (saveos down), and every worker.")
    try:
        count = rotate_key(settings)
    except RotationError as error:
        raise CommandError(f"{error}.") from error
    if output.is_json():
        output.emit({"tenants": count})
    else:
        print(f"The controller has a new key; the data keys of {count} tenants are wrapped with it.")
        print("Exports made before hold the old one: saveos controller export")
