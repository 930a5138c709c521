# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""The text of one small file of an archive, or how it differs in another archive or on the host as it is.

The text goes to whoever asked through the controller's memory, and never into a job's result or log.
"""

from __future__ import annotations

import base64
import difflib
import errno
import io
import os
import stat
from typing import Any, Optional

from saveos_agent.borg import LOCK_WAIT, borg_error, borg_output, borg_status, inner_path, resolve_archive
from saveos_agent.directories import open_directory, opened
from saveos_agent.errors import AgentError, usage
from saveos_agent.output import Output
from saveos_agent.redaction import Redactor
from saveos_agent.settings import Repository, Settings
from saveos_agent.times import new_run_id
from saveos_agent.transfer import Upload

SMALL = 256 * 1024  # bytes of a file
LINES = 8000  # of a file: difflib's time grows with their square
HOST = "host"  # instead of a second archive: as the file is now
NONE = "none"  # instead of a second archive: the text itself, compared with nothing


def difference(settings: Settings, repository: Repository, archive: str, other: str, ref: str) -> str:
    """The unified difference of a file; "" where there is none. Raises AgentError."""
    path = inner_path(os.fsdecode(_bytes_of(ref)))
    name, _ = resolve_archive(settings, repository, archive)
    old = archived(settings, repository, name, path)
    if other == HOST:
        later, new = "now", live(path)
    else:
        later, _ = resolve_archive(settings, repository, other)
        new = archived(settings, repository, later, path)
    if old is None and new is None:
        raise AgentError(
            "source_missing", "Neither of them holds this file.", "Choose one that an archive holds."
        )
    before, after = _lines(old), _lines(new)
    titles = (f"{name}: /{_shown(path)}", f"{later}: /{_shown(path)}")
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in difflib.unified_diff(before, after, *titles)
    )


def content(settings: Settings, repository: Repository, archive: str, ref: str) -> str:
    """The text of a file as an archive holds it. Raises AgentError."""
    path = inner_path(os.fsdecode(_bytes_of(ref)))
    name, _ = resolve_archive(settings, repository, archive)
    data = archived(settings, repository, name, path)
    if data is None:
        raise AgentError(
            "source_missing", f"{name} does not hold this file.", "Choose an archive that holds it."
        )
    return "".join(_lines(data))


def send_difference(  # noqa: PLR0917
    settings: Settings, repository: Repository, archive: str, other: str, ref: str, transfer: str
) -> int:
    """Send a difference, or with NONE a text, to whoever reads the transfer; returns its bytes."""
    if other == NONE:
        form, text = "txt", content(settings, repository, archive, ref)
    else:
        form = "diff"
        text = difference(settings, repository, archive, other, ref) or "The file is the same in both.\n"
    data = text.encode("utf-8", "replace")
    upload = Upload(settings, transfer, form)
    try:
        upload.write(data)
        upload.finish()
    finally:
        upload.close()
    return len(data)


def archived(settings: Settings, repository: Repository, archive: str, path: str) -> Optional[bytes]:
    """A small file as an archive holds it; None where it holds none. Raises AgentError."""
    told = borg_output(
        settings,
        repository,
        new_run_id(),
        "list",
        "--format",
        "{mode} {size}{NL}",
        f"::{archive}",
        f"pf:{path}",
    )
    if not told.strip():  # Borg's extract says nothing of a path that is not there
        return None
    mode, size = told.split()[:2]
    if mode[0] not in "-h":
        raise usage(f"It is no regular file in {archive}.", "Choose a regular file.")
    if int(size) > SMALL:
        raise _too_large()
    output = Output(Redactor.for_host(settings))
    held = bytearray()

    def take(chunk: bytes) -> None:
        held.extend(chunk)
        if len(held) > SMALL:
            raise _too_large()

    arguments = ["extract", "--stdout", "--log-json", *LOCK_WAIT, f"::{archive}", f"pf:{path}"]
    run_id = new_run_id()
    if borg_status(settings, repository, run_id, output, *arguments, on_bytes=take, seconds=600) != 0:
        raise borg_error(settings, repository, output)
    return bytes(held)


def live(path: str) -> Optional[bytes]:
    """A small file as it is now; None where there is none. Raises AgentError."""
    above, _, name = f"/{path}".rpartition("/")
    try:
        with opened(open_directory(above or "/")) as directory:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with open(os.open(name, flags, dir_fd=directory), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise usage("It is no regular file now.", "Choose a regular file.")
                data = file.read(SMALL + 1)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        if error.errno == errno.ELOOP:
            raise usage("It is a symbolic link now.", "Choose a regular file.") from None
        raise
    if len(data) > SMALL:
        raise _too_large()
    return data


def _lines(data: Optional[bytes]) -> list[str]:
    try:
        text = (data or b"").decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise AgentError("no_text", "The file is no text.", "Restore it to look at it.")
    lines = list(io.StringIO(text, newline="\n"))  # a form feed or a lone CR ends no line
    if len(lines) > LINES:
        raise _too_large()
    return lines


def _too_large() -> AgentError:
    sentence = f"The file is larger than {SMALL // 1024} KiB or {LINES} lines."
    return AgentError("too_large", sentence, "Restore it to a directory to look at it.")


def _bytes_of(ref: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(ref + "=" * (-len(ref) % 4))
    except ValueError:
        raise usage("The reference to a path is none.") from None


def _shown(path: str) -> Any:
    return os.fsencode(path).decode("utf-8", "replace").replace("\n", "?")
