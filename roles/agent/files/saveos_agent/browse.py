# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""Archives, and one directory of one of them."""

from __future__ import annotations

import re
from typing import Any, Callable, Optional

from saveos_agent.borg import LOCK_WAIT, borg_error, borg_status, inner_path, list_archives, resolve_archive
from saveos_agent.errors import AgentError
from saveos_agent.output import Output, json_object
from saveos_agent.redaction import Redactor
from saveos_agent.settings import Repository, Settings
from saveos_agent.state import HISTORY_KEEP, recent_records
from saveos_agent.times import borg_time, new_run_id

BROWSE_ENTRIES, BROWSE_BYTES = 2000, 500 * 1024


def snapshots(settings: Settings, repository_id: str) -> dict[str, Any]:
    """Archives of the repositories, newest first, with statistics where this host has the run's record."""
    chosen = [settings.repository(repository_id)] if repository_id else list(settings.repositories)
    stats = {}
    for record in recent_records(settings, HISTORY_KEEP):
        for result in record.get("results", ()):
            if result.get("archive"):
                stats[result["archive"]["id"]] = (record["run_id"], result["archive"])
    items = []
    for repository in chosen:
        for found in list_archives(settings, repository):
            run_id, known = stats.get(found["id"], (None, {}))
            item = {
                "repository_id": repository.id,
                "id": found["id"],
                "name": found["name"],
                "run_id": run_id,
            }
            item["started_at"] = borg_time(found.get("start"))
            fields = (
                "finished_at",
                "duration",
                "nfiles",
                "original_size",
                "compressed_size",
                "deduplicated_size",
            )
            items.append({**item, **{name: known.get(name) for name in fields}})
    return {"items": sorted(items, key=lambda item: item["started_at"] or "", reverse=True), "next": None}


def browse(settings: Settings, repository: Repository, archive: str, path: str) -> dict[str, Any]:
    """One directory of an archive, bounded in entries and bytes."""
    name, _ = resolve_archive(settings, repository, archive)
    inside = inner_path(path)
    entries: Optional[list[dict[str, Any]]] = None
    truncated = False
    if inside:
        entries, truncated = _directory(settings, repository, name, inside)
    if entries is None:
        entries, truncated = _implied_directories(settings, repository, name, inside)
        if inside and not entries:
            raise AgentError(
                "source_missing",
                f"/{inside} is no directory of archive {name}.",
                "Browse its parent directory first.",
            )
    result = {"repository_id": repository.id, "archive": name, "path": f"/{inside}"}
    return {**result, "entries": entries, "truncated": truncated}


class _Enough(Exception):
    """A listing reached its bounds."""


def _listing(
    settings: Settings, repository: Repository, on_item: Callable[[str], None], *arguments: str
) -> bool:
    """Stream a borg listing line by line. Returns whether it was cut short by _Enough."""
    run_id = new_run_id()
    output = Output(Redactor.for_host(settings), on_out=on_item)
    try:
        status = borg_status(settings, repository, run_id, output, "list", "--log-json", *LOCK_WAIT, *arguments)
    except _Enough:
        return True
    if status != 0 and set(output.statuses) - {101}:
        raise borg_error(settings, repository, output)
    if status != 0 and not output.warnings:
        raise borg_error(settings, repository, output)
    return False


def _directory(
    settings: Settings, repository: Repository, archive: str, inside: str
) -> tuple[Optional[list[dict[str, Any]]], bool]:
    """Entries of a directory that the archive holds itself; None where it does not."""
    quoted = re.escape(inside)
    entries: list[dict[str, Any]] = []
    size, itself = 0, False

    def on_item(text: str) -> None:
        nonlocal size, itself
        item = json_object(text)
        if item is None:
            return
        if item.get("path") == inside:
            itself = item.get("type") == "d"
            return
        size += len(text)
        if len(entries) >= BROWSE_ENTRIES or size > BROWSE_BYTES:
            raise _Enough
        entries.append(_entry(item))

    patterns = ["--pattern", f"+ re:^{quoted}(?:/[^/]+)?$", "--pattern", "- re:."]
    truncated = _listing(settings, repository, on_item, "--json-lines", *patterns, f"::{archive}")
    return (entries, truncated) if itself or entries else (None, False)


def _entry(item: dict[str, Any]) -> dict[str, Any]:
    path = str(item.get("path") or "")
    kept = {name: item.get(name) for name in ("type", "mode", "user", "group", "uid", "gid", "size")}
    link = item.get("linktarget") or None
    return {
        "name": path.rsplit("/", 1)[-1],
        "path": f"/{path}",
        **kept,
        "mtime": borg_time(item.get("mtime")),
        "link": link,
    }


def _implied_directories(
    settings: Settings, repository: Repository, archive: str, inside: str
) -> tuple[list[dict[str, Any]], bool]:
    """Parents of the sources are not in an archive: derive them from the paths below."""
    prefix = f"{inside}/" if inside else ""
    found: dict[str, dict[str, Any]] = {}
    pieces: list[str] = []

    def on_item(text: str) -> None:
        pieces.append(text)
        if not text.endswith("\0"):
            return  # a name with a line break goes on
        item = "\n".join(pieces)[:-1]
        pieces.clear()
        kind, path = item[:1], item[2:]
        if not path.startswith(prefix) or path == prefix:
            return
        name, _, below = path[len(prefix) :].partition("/")
        if len(found) >= BROWSE_ENTRIES:
            raise _Enough
        if name not in found:
            found[name] = {"name": name, "path": f"/{prefix}{name}", "type": "d" if below else kind}

    selector = [f"pp:{inside}"] if inside else []
    truncated = _listing(
        settings, repository, on_item, "--format", "{type} {path}{NUL}{NL}", f"::{archive}", *selector
    )
    return sorted(found.values(), key=lambda item: item["name"]), truncated
