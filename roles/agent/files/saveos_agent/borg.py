# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""borg and borgmatic with the passphrase, ssh command and paths that the backup has."""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Optional, Sequence

from saveos_agent.direct import run_borg
from saveos_agent.errors import EXIT_FAILED, AgentError, usage
from saveos_agent.output import Output, classify, ssh_probe
from saveos_agent.processes import Cancel, run_child
from saveos_agent.redaction import Redactor
from saveos_agent.runs import Run
from saveos_agent.settings import Repository, Settings
from saveos_agent.times import new_run_id

ARCHIVE_ID = re.compile(r"^[0-9a-f]{64}$")
LISTING = "{mode} {size} {isomtime} {bpath}{NUL}"
WARNINGS = (1, *range(100, 128))  # of Borg's exit statuses: it did what was asked, and something is to be said


def run_borgmatic(
    run: Run, repository: Repository, output: Output, cancel: Optional[Cancel], *action: str, zone: str = ""
) -> int:
    """Run borgmatic; with a `zone`, in that time zone. Returns its exit status."""
    argv = [
        *(["env", f"TZ={zone}"] if zone else []),
        run.settings.borgmatic,
        "--config",
        str(repository.config),
        "--log-json",
        "--verbosity",
        "1",
        *action,
    ]
    try:
        return run_child(argv, run.run_id, output.line, cancel)
    except OSError as error:
        output.line(
            "err", f"{run.settings.borgmatic} cannot be started: {error.strerror}. Provision the host again."
        )
        return EXIT_FAILED


def borg_status(
    settings: Settings, repository: Repository, run_id: str, output: Output, *arguments: str, **options: Any
) -> int:
    """Run a borg command with `run_borg`'s options; returns its status, as borgmatic's 0 for mere warnings."""
    try:
        status = run_borg(settings, repository, run_id, output, *arguments, **options)
    except OSError as error:
        output.line("err", f"Borg cannot be started: {error.strerror}. Provision the host again.")
        return EXIT_FAILED
    return 0 if status in WARNINGS else status


def borg_output(settings: Settings, repository: Repository, run_id: str, *arguments: str) -> str:
    """Standard output of a borg command that only reads. Raises AgentError with the stable code."""
    collected: list[str] = []
    output = Output(Redactor.for_host(settings), on_out=collected.append)
    command, *rest = arguments
    told = [command, "--log-json", *LOCK_WAIT, *rest]
    status = borg_status(settings, repository, run_id, output, *told, seconds=600)
    if status != 0:
        raise borg_error(settings, repository, output)
    return "\n".join(collected)


LOCK_WAIT = ("--lock-wait", "60")


def borg_error(settings: Settings, repository: Repository, output: Output) -> AgentError:
    error = classify(output, ssh_probe(settings, repository))
    return AgentError(error["code"], error["message"], error["fix"])


def list_archives(settings: Settings, repository: Repository, *arguments: str) -> list[dict[str, Any]]:
    found = json.loads(borg_output(settings, repository, new_run_id(), "list", "--json", *arguments))
    return list(found.get("archives") or [])


def list_paths(
    settings: Settings,
    repository: Repository,
    archive: str,
    take: Callable[[bytes], Any],
    *chosen: str,
    run_id: str = "",
    cancel: Optional[Cancel] = None,
    seconds: Optional[float] = None,
    under: Sequence[str] = ("nice",),
) -> None:
    """Feed an archive's paths, or the `chosen`, to `take` as LISTING, with times in UTC. Raises AgentError."""
    output = Output(Redactor.for_host(settings))
    status = borg_status(
        settings,
        repository,
        run_id or new_run_id(),
        output,
        *("list", "--log-json", *LOCK_WAIT, "--format", LISTING, f"::{archive}", *chosen),
        cancel=cancel,
        seconds=seconds,
        on_bytes=take,
        under=("env", "TZ=UTC", *under),
    )
    if status != 0:
        raise borg_error(settings, repository, output)


def resolve_archive(settings: Settings, repository: Repository, archive: str) -> tuple[str, Optional[str]]:
    """Name and id of an archive given by name, by id, or as "latest". Raises AgentError."""
    if not archive or archive.startswith(("-", ":")) or "\0" in archive:
        raise usage(f"{archive!r} is no archive's name or id.", "List them with: saveos-agent snapshots.")
    if archive != "latest" and not ARCHIVE_ID.match(archive):
        return archive, None
    known = list_archives(settings, repository, *(("--last", "1") if archive == "latest" else ()))
    for item in reversed(known):
        if archive in ("latest", item["id"]):
            return item["name"], item["id"]
    raise AgentError(
        "archive_missing",
        "The repository has no archive yet."
        if archive == "latest"
        else f"There is no archive with id {archive}.",
        "List them with: saveos-agent snapshots.",
    )


def inner_path(path: str) -> str:
    """A path as archives hold it: without the leading slash. Raises AgentError on traversal."""
    if "\0" in path or ".." in path.split("/"):
        raise usage(f"The path {path!r} may hold no '..' and no NUL.")
    return "/".join(part for part in path.split("/") if part not in ("", "."))
