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
    if not _is_there(here):
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
        _remove_but(directory, list(kept.values()))
    gone = leftovers.remove_storage(here)
    stay = [user.pw_name for user in leftovers.storage_users(here)]
    if leftovers.is_only_one(here):
        for path in PROGRAMS:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    if output.is_json():
        users = {"users_removed": gone, "users_kept": stay}
        output.emit({"home": str(here.home), "kept": [str(path) for path in kept.values()]} | users)
        return
    print(f"The installation in {here.home} is removed.")
    if gone:
        print(f"Its storage is gone, and so is {_named(gone)}.")
    _print_kept(here, kept, stay)


def _is_there(here: Installation) -> bool:
    """Whether anything of an installation is left that a purge removes."""
    is_without_storage = bool(leftovers.storage_users(here)) and not here.storage.exists()
    return here.home.exists() or bool(leftovers.agent_files(here)) or is_without_storage


def _print_kept(here: Installation, kept: dict[str, Path], users: list[str]) -> None:
    if kept:
        print("Kept, because nothing else can bring the backups back:")
        for what, path in kept.items():
            print(f"  {what:12}  {path}")
        print("Remove these yourself when you no longer need them.")
    if users and here.storage.exists():
        print(
            f"Kept, as {here.storage} is: {_named(users)}. Without that directory, make purge removes it too."
        )
    elif users:
        print(f"Kept, because a process runs as it: {_named(users)}. End that, then make purge removes it.")


def _named(users: list[str]) -> str:
    return f"the user{'s' if len(users) > 1 else ''} {', '.join(users)}"


def _kept(here: Installation) -> dict[str, Path]:
    """Return the repositories, and the passphrases that open them, that exist."""
    etc = here.home / "agent/etc" if here.instance else Path("/etc/saveos")
    wanted = {"repositories": here.storage / "repositories", "passphrases": etc / "repositories"}
    return {what: path for what, path in wanted.items() if path.is_dir() and any(path.iterdir())}


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
