# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""What a restore is asked for, and what is refused before it starts."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable

from saveos_agent.borg import inner_path
from saveos_agent.directories import only_ours, open_directory
from saveos_agent.errors import refused, usage
from saveos_agent.settings import Repository, Settings

CONFLICTS = ("refuse", "skip", "rename", "overwrite", "newer")


@dataclass(frozen=True)
class RestoreRequest:
    """What to bring back and where to; paths are text as Python decodes file names, so any bytes survive.

    `destination`: a directory; empty is one below the state directory. With `in_place` everything goes back to
    where it came from. `conflict` says what happens to what is there: `refuse` takes an absent or empty
    directory only. With `transfer` the content comes from another host, whose repository it is. Without
    `owners` everything belongs to who runs the agent, and is setuid to nobody.
    """

    run_id: str
    job_id: str
    trigger: str
    repository: str
    archive: str
    paths: tuple[str, ...]
    destination: str
    excludes: tuple[str, ...] = ()
    conflict: str = "refuse"
    in_place: bool = False
    verify: bool = True
    transfer: str = ""
    owners: bool = True
    acls: bool = True
    xattrs: bool = True

    @property
    def state_file(self) -> str:
        return f"restoring/{self.run_id}.json"

    def repository_of(self, settings: Settings) -> Repository:
        """The repository that it comes from. Raises AgentError where this host has none such."""
        if self.transfer:
            return Repository(self.repository, "", "", Path(), "")
        return settings.repository(self.repository)

    def selectors(self) -> list[str]:
        """The part of borg's command line that chooses; after the archive's name."""
        return [f"pp:{inner_path(path)}" for path in self.paths]

    def exclusions(self) -> list[str]:
        return [part for path in self.excludes for part in ("--exclude", f"pp:{inner_path(path)}")]

    def left_behind(self) -> list[str]:
        """Borg's options for what belongs to a file and is not wanted."""
        return ([] if self.acls else ["--noacls"]) + ([] if self.xattrs else ["--noxattrs"])

    def target(self, settings: Settings) -> Path:
        if self.in_place:
            return Path("/")
        return Path(self.destination or settings.state / "restores" / self.run_id)

    def near(self, settings: Settings) -> Path:
        """A path on the file system to which it goes."""
        if self.in_place and self.paths:
            return Path("/" + os.path.commonpath([os.path.dirname(path) for path in outermost(self.paths)]))
        return self.target(settings)


def check_restore(settings: Settings, request: RestoreRequest) -> Path:
    """Refuse before anything starts: unknown repository, bad path, a destination that cannot be. Its path."""
    request.repository_of(settings)
    check_paths(request)
    if request.in_place and (request.destination or request.conflict == "refuse"):
        raise usage(
            "In place there is no other destination, and a rule is needed for what is there.",
            "Leave --destination out and add --conflict skip, rename, overwrite or newer.",
        )
    destination = request.target(settings)
    if not destination.is_absolute() or ".." in destination.parts or "\0" in str(destination):
        raise usage(f"The destination {str(destination)!r} must be an absolute path without '..'.")
    try:
        status = destination.lstat()
    except FileNotFoundError:
        check_writable(destination)
        return destination
    except OSError as error:
        raise refused(
            f"The destination {destination} cannot be used: {error.strerror}.", "Name another one."
        ) from None
    if request.conflict == "refuse" and (not stat.S_ISDIR(status.st_mode) or any(destination.iterdir())):
        raise refused(
            f"The destination {destination} exists and is no empty directory.",
            "Name a path that does not exist, or an empty directory, or a rule for what is there (--conflict).",
        )
    if not request.in_place:
        os.close(open_directory(str(destination)))
    check_writable(destination)
    return destination


def check_paths(request: RestoreRequest) -> None:
    for path in (*request.paths, *request.excludes):
        if not inner_path(path):
            raise usage("An empty path cannot be restored.", "Leave --path out to restore the whole archive.")


def check_writable(destination: Path) -> None:
    """Refuse a destination on a read-only file system, or where this user may not write. Raises AgentError."""
    place = destination
    while not place.exists():
        place = place.parent
    if os.statvfs(place).f_flag & os.ST_RDONLY or not os.access(place, os.W_OK | os.X_OK):
        raise refused(f"{place} cannot be written.", "Name another destination, or run this as root.")


def staging_parent(settings: Settings, near: Path) -> Path:
    """Where to extract: the deepest directory above (or at) a path, on its file system, that only root can
    change from / on, so that no user can lead the extraction astray; else one below the state directory."""
    place = near
    while not place.exists():
        place = place.parent
    place = Path(os.path.realpath(place))
    device, found = place.stat().st_dev, settings.state / "restores"
    for directory in (*reversed(place.parents), place):
        status = directory.stat()
        if not only_ours(status):
            break
        writable = not os.statvfs(directory).f_flag & os.ST_RDONLY and os.access(directory, os.W_OK)
        if status.st_dev == device and writable:
            found = directory
    return found


def outermost(paths: Iterable[str]) -> list[str]:
    """Inner paths of a selection, without those below others."""
    found: list[str] = []
    for path in sorted({inner_path(path) for path in paths}, key=lambda path: path.split("/")):
        if not found or not f"{path}/".startswith(f"{found[-1]}/"):
            found.append(path)
    return found
