"""`saveos purge`: remove an installation from this machine, all but its repositories and what opens them."""

import shutil
import sys
from pathlib import Path

import typer

from saveos.cli import installation, leftovers, output, preflight, process
from saveos.cli.errors import FAILED, USAGE, CommandError
from saveos.cli.installation import Installation

PROGRAMS = [
    Path(path) for path in ("/opt/saveos", "/usr/local/bin/saveos-agent", "/usr/local/sbin/saveos-guard")
]


def run(yes: bool) -> None:
    """Stop and remove; print what is kept and where. Raises CommandError when it is not confirmed."""
    preflight.need_root("purge")
    here = installation.current()
    if not here.home.exists() and not leftovers.agent_files(here):
        print(f"There is no installation in {here.home}.")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError("Nobody is there to confirm: add --yes.", USAGE)
        if not typer.confirm(
            f"Remove the controller in {here.home} and this machine's agent? Repositories stay.", err=True
        ):
            raise CommandError("Nothing was removed.", FAILED)
    process.stop(here)
    kept = _kept(here)
    for path in leftovers.agent_files(here):
        _remove_agent_file(path)
    if not here.instance:
        leftovers.end_default_agent()
    leftovers.remove(here)
    for directory in _directories(here):
        _remove_but(directory, kept)
    if leftovers.is_only_one(here):
        for path in PROGRAMS:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if output.is_json():
        output.emit({"home": str(here.home), "kept": [str(path) for path in kept]})
        return
    print(f"The installation in {here.home} is removed.")
    if kept:
        print("Kept, because nothing else can bring the backups back:")
        print(f"  repositories  {kept[0]}")
        for path in kept[1:]:
            print(f"  passphrases   {path}")
        print("Remove these yourself when you no longer need them.")


def _kept(here: Installation) -> list[Path]:
    """Return the repositories, and the passphrases that open them, that exist."""
    etc = here.home / "agent/etc" if here.instance else Path("/etc/saveos")
    wanted = (here.storage / "repositories", etc / "repositories")
    return [path for path in wanted if path.is_dir() and any(path.iterdir())]


def _directories(here: Installation) -> list[Path]:
    if here.instance:
        return [here.home]
    names = ("/etc/saveos", "/var/lib/saveos-agent", "/run/saveos-agent", "/var/lib/saveos-guard")
    return [here.home, *map(Path, names)]


def _remove_agent_file(path: Path) -> None:
    if path.parent == process.UNITS and installation.is_systemd():
        import subprocess

        subprocess.run(
            ["systemctl", "disable", "--quiet", "--now", path.name], check=False, capture_output=True
        )
    path.unlink(missing_ok=True)


def _remove_but(directory: Path, kept: list[Path]) -> None:
    """Remove a directory but for what is kept below it."""
    if directory in kept or not directory.exists():
        return
    if not any(path.is_relative_to(directory) for path in kept):
        shutil.rmtree(directory) if directory.is_dir() and not directory.is_symlink() else directory.unlink()
        return
    for path in directory.iterdir():
        _remove_but(path, kept)
