# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""What a run would do."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from saveos_agent.borg import list_archives, resolve_archive
from saveos_agent.errors import EXIT_FAILED, AgentError
from saveos_agent.extraction import archive_entries
from saveos_agent.health import PROVISION, repository_health
from saveos_agent.mover import Foresight
from saveos_agent.output import Output, classify
from saveos_agent.processes import run_child
from saveos_agent.redaction import USERINFO, Redactor
from saveos_agent.request import RestoreRequest, check_restore, staging_parent
from saveos_agent.settings import Repository, Settings
from saveos_agent.times import new_run_id


def plan_backup(settings: Settings) -> dict[str, Any]:
    """Repositories, sources and last archives; a dry run of borg would take as long as the backup."""
    if not settings.repositories:
        raise AgentError("not_configured", "This host has no repository.", PROVISION)
    return {"repositories": [plan_repository(settings, repository) for repository in settings.repositories]}


def plan_repository(settings: Settings, repository: Repository) -> dict[str, Any]:
    known = repository_health(settings, repository)
    plan = {"id": repository.id, "url": USERINFO.sub(r"\g<scheme>:***@", repository.url)}
    return {
        **plan,
        "sources": configured_sources(settings, repository),
        "last_archive": known["last_archive"],
        "last_archive_at": known["last_archive_at"],
    }


def configured_sources(settings: Settings, repository: Repository) -> list[str]:
    """The sources as borgmatic reads them from its config. Raises AgentError where it is broken."""
    collected: list[str] = []
    output = Output(Redactor.for_host(settings), on_out=collected.append)
    argv = [settings.borgmatic, "--config", str(repository.config), "--no-color"]
    try:
        status = run_child(
            [*argv, "config", "show", "--option", "source_directories", "--json"], new_run_id(), output.line
        )
        found = json.loads("\n".join(collected)) if status == 0 else [[]]
    except (OSError, ValueError):
        status, found = EXIT_FAILED, [[]]
    if status != 0:
        error = classify(output)
        raise AgentError(error["code"], error["message"], PROVISION)
    return [str(path) for path in (found[0] or [])]


def plan_restore(settings: Settings, request: RestoreRequest) -> dict[str, Any]:
    """What a restore would do, entry by entry, from the archive's listing and what is on the disk now."""
    destination = check_restore(settings, request)
    repository = settings.repository(request.repository)
    name, _ = resolve_archive(settings, repository, request.archive)
    if name == request.archive and name not in {item["name"] for item in list_archives(settings, repository)}:
        raise AgentError(
            "archive_missing", f"There is no archive {name!r}.", "List them with: saveos-agent snapshots."
        )
    seen, files, size = Foresight(str(destination), request.conflict), 0, 0
    for mode, length, mtime, path in archive_entries(settings, request, repository, name):
        is_directory = mode.startswith("d")
        seen.look(path, is_directory, mtime)
        files += not is_directory
        size += length
    if request.paths and not seen.directories.keys() - {""} and not files:
        raise AgentError("source_missing", f"None of the paths is in archive {name}.", "Browse the archive.")
    free = shutil.disk_usage(staging_parent(settings, request.near(settings))).free
    return {
        "repository_id": repository.id,
        "archive": name,
        "paths": [os.fsencode(path).decode("utf-8", "replace") for path in request.paths],
        "destination": str(destination),
        "in_place": request.in_place,
        "conflict": request.conflict,
        "files": files,
        "bytes": size,
        "free": free,
        "fits": size <= free,
        **seen.counts(),
        "blocked": seen.actions["blocked"],
        "entries": seen.first,
    }
